//! A stick is pulled out of a running backup at 20 moments by chance (`LIFEBOAT_SEED` repeats them): each time what was on
//! it before is whole, the next backups succeed, and at the end it boots.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::plugged::{Bench, ensure_says};
use super::rescue;
use crate::artefacts::Artefacts;
use crate::disk;
use crate::process::{Cmd, run as run_here};
use crate::qemu::{Firmware, Stick};
use crate::runner::Scenario;

/// The scenario.
pub fn scenario(_artefacts: &Path) -> Scenario {
    Scenario::new(
        "hot-plug-pulled",
        "a stick is pulled out of 20 backups at any moment: what was on it verifies, the next one succeeds, it boots",
        super::needs_bios,
        run,
    )
    .long()
}

const TIMES: u64 = 20;
/// After so many it is left in.
const UNTIL_WHOLE: u64 = 5;

const CONFIG: &str = "rescue-modules = \"slim\"\nexclude = [\"/usr/*\", \"/var/lib/dpkg/*\"]\n\
    [plug]\non-plug = \"always\"";

fn run(log: &Artefacts) -> Result<()> {
    let seed = std::env::var("LIFEBOAT_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |d| d.as_secs())
    });
    log.note(&format!("LIFEBOAT_SEED={seed}"));
    let mut chance = Chance(seed);
    let bench = Bench::new(log)?;
    let stick = bench.stick("STICK-A")?;
    let mut plugged = bench.host(CONFIG)?;
    plugged.plug(&stick, 60)?;
    plugged.adopt(&stick)?;
    plugged.host.pull(&stick)?;
    let mut whole = 0;
    let mut longest = Duration::ZERO;
    for round in 0..=TIMES {
        if round % UNTIL_WHOLE == 0 {
            let begun = Instant::now();
            news(&mut plugged, round)?;
            let said = plugged.plug(&stick, 900)?;
            ensure_says(&said, "It is powered down")
                .with_context(|| format!("after {round} pulls"))?;
            longest = longest.max(begun.elapsed());
            plugged.host.pull(&stick)?;
            whole += 1;
            judge(&bench, &stick, whole, log).with_context(|| format!("after {round} pulls"))?;
            log.note(&format!(
                "whole after {round} pulls, {} s",
                begun.elapsed().as_secs()
            ));
        }
        if round == TIMES {
            break;
        }
        news(&mut plugged, round + 100)?;
        plugged.host.plug(&stick)?;
        let moment = longest.mul_f64(chance.share());
        std::thread::sleep(moment);
        plugged.host.pull(&stick)?;
        log.note(&format!("{round}: pulled after {} ms", moment.as_millis()));
        // Pulled before it was seen, nothing starts at all; otherwise it has to end by itself.
        plugged.settle(300)?;
        let said = plugged.said()?;
        std::fs::write(log.path(&format!("said-{round}.log")), &said)?;
        plugged.ensure_unmounted()?;
        if said.contains("was read back without errors") {
            log.note(&format!("{round}: it was complete before"));
            whole += 1;
        }
        judge(&bench, &stick, whole, log)
            .with_context(|| format!("pulled for the {round}. time"))?;
    }
    plugged.host.shut_down()?;
    boots(&stick, log)
}

/// Something to be saved that is on no stick yet.
fn news(plugged: &mut super::plugged::Plugged, round: u64) -> Result<()> {
    plugged.text(&format!(
        "dd if=/dev/urandom of=/srv/news bs=1M count=12 status=none; echo {round} >/srv/round; sync"
    ))?;
    Ok(())
}

/// All restore points that were made are there, and good; one more may be, whose end nobody was told of.
fn judge(bench: &Bench<'_>, stick: &Stick, whole: usize, log: &Artefacts) -> Result<()> {
    let copy = log.path("judged.raw");
    disk::copy(&stick.image, &copy, log)?;
    // As the kernel does when it is mounted: an image that is read has its journal left alone.
    rescue::on_data_partition(&copy, log, |_| Ok(()))?;
    let points = bench.restore_points(&copy)?;
    ensure!(
        points.len() >= whole,
        "{whole} restore points were made, there are {}",
        points.len()
    );
    bench.verify(&copy)?;
    let check = Cmd::new("fsck.ext4").args(["-fn"]);
    let gpt = disk::gpt(&copy)?;
    let data = gpt.partitions.last().context("no partitions")?;
    let place = format!("{}?offset={}", copy.display(), data.start * 512);
    run_here(&check.arg(place), log, Duration::from_secs(120))?;
    std::fs::remove_file(&copy)?;
    Ok(())
}

fn boots(stick: &Stick, log: &Artefacts) -> Result<()> {
    let mut machine = rescue::machine(Firmware::Bios, &stick.image).start(log)?;
    let ready = rescue::wait_event(&machine.serial, &["ready"], Duration::from_secs(240))
        .context("the stick does not boot any more")?;
    ensure!(ready.number("bundles")? == 1, "no bundle: {}", ready.fields);
    machine
        .serial
        .expect("Restore point [1]: ", Duration::from_secs(60))?;
    log.note("the stick boots");
    machine.quit()
}

/// Numbers that look like chance (xorshift64*): Marsaglia, "Xorshift RNGs".
struct Chance(u64);

impl Chance {
    /// 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        number as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_spread_over_the_whole_time() {
        let mut chance = Chance(1_700_000_000);
        let all: Vec<f64> = (0..200).map(|_| chance.share()).collect();
        for part in 0..4 {
            let (from, to) = (f64::from(part) / 4.0, f64::from(part + 1) / 4.0);
            let count = all.iter().filter(|s| (from..to).contains(*s)).count();
            assert!(count > 20, "{count} in quarter {part}");
        }
    }
}
