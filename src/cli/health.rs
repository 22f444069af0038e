//! `weir health`: how a running weir is, for supervisors that look at exit codes. It asks the admin socket, so that no port and no extension is needed.

use std::process::ExitCode;

use super::{
    FAILED,
    admin_socket::find,
    arguments::HealthArgs,
    live::{ask, standing},
    run::say,
};
use crate::admin::Report;

pub(super) fn health(args: &HealthArgs) -> ExitCode {
    // Whatever is wrong, the one who asks knows two answers.
    match find(&args.place).and_then(|socket| ask(&socket)) {
        Ok(report) => {
            let why = report.refusing.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            say(&format!("weir (pid {}): {}{why}", report.pid, standing(&report)));
            if is_well(&report, args.ready) { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
        }
        Err(message) => {
            say(&format!("weir: {message}"));
            ExitCode::from(FAILED)
        }
    }
}

fn is_well(report: &Report, ready: bool) -> bool {
    match report.state.as_str() {
        "ok" => !ready || report.refusing.is_none(),
        // Whoever restarts it now would only make it take longer.
        "starting" | "stopping" => !ready,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::live::tests::report;

    #[test]
    fn what_takes_no_data_is_alive_and_not_ready() {
        let of = |state: &str, refusing: Option<&str>| {
            let report = Report { state: state.to_owned(), refusing: refusing.map(str::to_owned), ..report() };
            (is_well(&report, false), is_well(&report, true))
        };
        assert_eq!(of("ok", None), (true, true));
        assert_eq!(of("ok", Some("the disk is full")), (true, false));
        assert_eq!(of("starting", None), (true, false));
        assert_eq!(of("stopping", None), (true, false));
        assert_eq!(of("a consumer panicked", None), (false, false));
    }
}
