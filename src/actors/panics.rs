//! Panics made visible: one hook that logs each with its actor, and the text that is kept as an actor's last panic.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::actors::current;

thread_local! {
    /// Place of the thread's last panic, noted by the hook for whoever catches the unwinding.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes every panic of the process a log line with the actor's kind and name, the message it worked on, text and place.
/// Before logging is set up, and in programs that never set it up, the previous hook speaks. Later calls change nothing.
pub fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let _ = PLACE.try_with(|cell| cell.replace(Some(place.clone())));
            if tracing::dispatcher::has_been_set() {
                log(info, &place);
            } else {
                previous(info);
            }
        }));
    });
}

/// Runs `work` and turns its panic into the text of it. Nothing unwinds out of this, whatever the panic carries.
pub(super) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let place = PLACE.try_with(RefCell::take).ok().flatten();
        let text = text(payload.as_ref());
        // A payload may be any value, even one whose drop panics.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        place.map_or_else(|| text.clone(), |place| format!("{text} at {place}"))
    })
}

fn log(info: &PanicHookInfo<'_>, place: &str) {
    let text = text(info.payload());
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    match current::thread().activity() {
        Some(activity) => tracing::error!(
            component = "actors",
            kind = activity.actor.kind().name,
            actor = activity.actor.name(),
            // Not `message`: that is the name of the line's own text.
            work = current::short_name(activity.message),
            thread,
            place,
            panic = text,
            "an actor panicked"
        ),
        None => tracing::error!(component = "actors", thread, place, panic = text, "a thread panicked"),
    }
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_text() {
        assert_eq!(catch(|| 7), Ok(7));
        for (caught, expected) in [
            (catch(|| panic!("literal")), "literal"),
            (catch(|| panic!("with {}", 1)), "with 1"),
            (catch(|| std::panic::panic_any(5)), "a panic without a text"),
        ] {
            let text: Result<(), String> = caught;
            assert!(text.clone().is_err_and(|text| text.starts_with(expected)), "{text:?}");
        }
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_contained() {
        struct Mine;
        impl Drop for Mine {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        assert!(catch(|| std::panic::panic_any(Mine)).is_err());
    }

    #[test]
    fn the_hook_adds_the_place() {
        install_hook();
        let caught: Result<(), String> = catch(|| panic!("here"));
        assert!(caught.is_err_and(|text| text.contains("here at ") && text.contains("panics.rs")));
    }
}
