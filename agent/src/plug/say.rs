//! Says what became of a stick to whoever is near the machine. That it cannot be said must not keep anybody from anything.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use layout::system::{Cmd, System};

use super::settings::Way;
use crate::progress::printable;

/// The PC speaker's device, by the name that udev gives it.
const SPEAKER: &str = "/dev/input/by-path/platform-pcspkr-event-spkr";

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// Two rising tones.
    Good,
    /// Three long low ones.
    Bad,
}

/// Says something in all of these ways; with a sound, where something has come to an end.
pub fn tell(sys: &dyn System, ways: &[Way], text: &str, sound: Option<Sound>) {
    let lines = lines(text);
    for way in ways {
        let done = match (way, sound) {
            (Way::Console, _) => console(&lines),
            (Way::Wall, _) => {
                let text = format!("{}\n", lines.join("\n"));
                let wall = Cmd::new("wall")
                    .input(text)
                    .timeout(Duration::from_secs(30));
                sys.run(&wall).map(drop).map_err(Into::into)
            }
            (Way::Speaker, Some(sound)) => speaker(sound),
            (Way::Speaker, None) => Ok(()),
        };
        if let Err(error) = done {
            tracing::info!("not said ({way:?}): {error:#}");
        }
    }
}

/// Names of sticks come from outside.
fn lines(text: &str) -> Vec<String> {
    let lines = text.lines();
    lines.map(|line| printable(line.as_bytes())).collect()
}

fn console(lines: &[String]) -> anyhow::Result<()> {
    // Not to wait for a console that nobody reads.
    let mut console = File::options()
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open("/dev/console")?;
    console.write_all(format!("\r\n{}\r\n", lines.join("\r\n")).as_bytes())?;
    Ok(())
}

/// Frequencies in hertz (0: silence) with how long they sound, in milliseconds.
fn tones(sound: Sound) -> &'static [(u32, u64)] {
    match sound {
        Sound::Good => &[(880, 180), (0, 60), (1320, 300)],
        Sound::Bad => &[(220, 600), (0, 200), (220, 600), (0, 200), (220, 600)],
    }
}

fn speaker(sound: Sound) -> anyhow::Result<()> {
    if !Path::new(SPEAKER).exists() {
        return Ok(());
    }
    let mut device = File::options().write(true).open(SPEAKER)?;
    play(&mut device, tones(sound), std::thread::sleep)
}

fn play(
    device: &mut dyn Write,
    tones: &[(u32, u64)],
    wait: impl Fn(Duration),
) -> anyhow::Result<()> {
    let mut played = Ok(());
    for (hertz, milliseconds) in tones {
        played = played.and_then(|()| device.write_all(&event(*hertz)));
        wait(Duration::from_millis(*milliseconds));
    }
    // It would sound for ever.
    device.write_all(&event(0))?;
    Ok(played?)
}

/// `struct input_event` (linux/input.h): a tone of the speaker.
fn event(hertz: u32) -> Vec<u8> {
    /// `EV_SND`, `SND_TONE` (linux/input-event-codes.h)
    const KIND: u16 = 0x12;
    const CODE: u16 = 0x02;
    let mut event = vec![0; size_of::<libc::timeval>()];
    event.extend(KIND.to_ne_bytes());
    event.extend(CODE.to_ne_bytes());
    event.extend(hertz.to_ne_bytes());
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use layout::system::Recorded;

    #[test]
    fn the_speaker_ends_silent() {
        assert_eq!(event(440).len(), size_of::<libc::input_event>());
        for sound in [Sound::Good, Sound::Bad] {
            let mut played = Vec::new();
            play(&mut played, tones(sound), |_| {}).unwrap();
            let events: Vec<&[u8]> = played.chunks(event(0).len()).collect();
            assert_eq!(events.last(), Some(&event(0).as_slice()));
            assert!(events.iter().any(|e| *e != event(0).as_slice()));
        }
    }

    #[test]
    fn what_others_named_does_not_steer_a_terminal() {
        assert_eq!(lines("a\u{1b}[2Jb\nc"), ["a?[2Jb", "c"]);
        let sys = Recorded::new().command("wall", "");
        tell(&sys, &[Way::Wall], "text", None);
        assert_eq!(*sys.log.lock().unwrap(), ["wall"]);
    }
}
