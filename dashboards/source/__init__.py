"""The dashboards as they are written; `dashboards/generate` makes Grafana's JSON of them."""
