//! A stick is pulled out of a running backup at 20 moments by chance (`LIFEBOAT_SEED` repeats them): each time what was on
//! it before is whole, the next backups succeed, and at the end it boots.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::plugged::{Bench, Plugged, ensure_says};
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
        super::needs_package,
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
    // The first one takes longer than those that follow: all is new to the stick.
    complete(&mut plugged, &stick)?;
    let mut typical = complete(&mut plugged, &stick)?;
    let mut whole = 2;
    judge(&bench, &stick, whole, log)?;
    let (mut pulled, mut tries) = (0, 0);
    while pulled < TIMES {
        tries += 1;
        ensure!(
            tries <= 4 * TIMES,
            "most backups end before the stick is pulled"
        );
        news(&mut plugged)?;
        plugged.host.plug(&stick)?;
        let moment = typical.mul_f64(chance.share());
        std::thread::sleep(moment);
        plugged.host.pull(&stick)?;
        log.note(&format!("{tries}: pulled after {} ms", moment.as_millis()));
        // Pulled before it was seen, nothing starts at all; otherwise it has to end by itself.
        plugged.settle(300)?;
        let said = plugged.said()?;
        std::fs::write(log.path(&format!("said-{tries}.log")), &said)?;
        plugged.ensure_unmounted()?;
        if said.contains("was read back without errors") {
            log.note(&format!("{tries}: it was complete before"));
            whole += 1;
        } else {
            pulled += 1;
        }
        judge(&bench, &stick, whole, log).with_context(|| format!("after try {tries}"))?;
        if pulled % UNTIL_WHOLE == 0 {
            typical = complete(&mut plugged, &stick).with_context(|| format!("try {tries}"))?;
            whole += 1;
            judge(&bench, &stick, whole, log).with_context(|| format!("after try {tries}"))?;
            log.note(&format!("{pulled} times pulled, and whole"));
        }
    }
    plugged.host.shut_down()?;
    boots(&stick, log)
}

/// A backup that nobody disturbs; how long it took from plugging in.
fn complete(plugged: &mut Plugged, stick: &Stick) -> Result<Duration> {
    news(plugged)?;
    let begun = Instant::now();
    let said = plugged.plug(stick, 900)?;
    let took = begun.elapsed();
    ensure_says(&said, "It is powered down")?;
    plugged.host.pull(stick)?;
    Ok(took)
}

/// Something to be saved that is on no stick yet.
fn news(plugged: &mut Plugged) -> Result<()> {
    plugged.text("dd if=/dev/urandom of=/srv/news bs=1M count=12 status=none; sync")?;
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
    let machine = rescue::machine(Firmware::Bios, &stick.image).start(log)?;
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
