//! Being asked to stop: ctrl-C and SIGTERM.

use tokio::sync::watch;

/// Becomes true at the first ctrl-C or SIGTERM; a second one ends the process at once, which loses nothing either.
pub(super) fn stop_on_signal() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, stop) = watch::channel(false);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked {
                std::process::exit(130);
            }
            asked = true;
            tell.send_replace(true);
        }
    });
    Ok(stop)
}
