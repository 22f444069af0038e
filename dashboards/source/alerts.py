"""The alerts of `dashboards/rules` on dashboards: a table of what fires, and marks on the time axis."""

from .grafana import annotation, column, link, override, table

SEVERITIES = [
    {"type": "value", "options": {"critical": {"text": "critical", "color": "red", "index": 0}, "warning": {"text": "warning", "color": "orange", "index": 1}}}
]

ANNOTATIONS = [
    annotation(
        "Alerts",
        'ALERTS{alertname=~"Weir.+",alertstate="firing",severity="critical"}',
        "red",
        "{{alertname}}",
        "{{service_name}}{{component}}{{host_name}}{{mountpoint}} {{reason}}",
    ),
    annotation("Deployments", 'count by (job, service_version) (target_info{service_version!=""}) unless count by (job, service_version) (target_info{service_version!=""} offset 5m)', "blue", "{{job}}", "version {{service_version}}"),
    annotation("weir started", "otelcol_process_uptime < 60", "purple", "weir started", "{{instance}}"),
]


def firing():
    """Which alerts fire and since when, most severe first."""
    weir = 'alertname=~"Weir.+"'
    since = f'ALERTS_FOR_STATE{{{weir}}} * 1000 and ignoring (alertstate) ALERTS{{{weir},alertstate="firing"}}'
    fields = {
        "severity": "Severity",
        "alertname": "Alert",
        "Value": "Since",
        "service_name": "Service",
        "component": "Component",
        "host_name": "Host",
        "mountpoint": "Mount",
        "reason": "Reason",
        "instance": "weir",
    }
    time = "${prometheus_datasource:queryparam}&${__url_time_range}"
    links = [
        link("The service", f"/d/weir-service?var-service=${{__data.fields.Service:percentencode}}&{time}"),
        link("Its objectives", f"/d/weir-slo?var-service=${{__data.fields.Service:percentencode}}&{time}"),
        link("The host", f"/d/weir-hosts?var-host=${{__data.fields.Host:percentencode}}&{time}"),
        link("weir itself", f"/d/weir-self?{time}"),
    ]
    return table(
        "Alerts that fire",
        "The alerts of dashboards/rules that fire now. The description of each, in Prometheus or Alertmanager, says what to look at first.",
        [column("A", since)],
        "dateTimeFromNow",
        rename=fields,
        order=list(fields),
        hide=["job", "service_namespace", "slo", "pipeline", "signal", "device", "connector", "label", "receiver"],
        sort="Severity",
        overrides=[
            override("Severity", ("mappings", SEVERITIES), ("custom.cellOptions", {"type": "color-text"}), ("custom.width", 90)),
            override("Alert", ("links", links), ("custom.minWidth", 200)),
        ],
        empty="no alert fires",
    )
