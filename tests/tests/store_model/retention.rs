//! Restore points that grow old, and those that are removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Result, bail, ensure};
use bundle::document::Snapshot;
use bundle::prune::{Policy, Prune, PruneOptions, Whose};
use bundle::{Error, Id};

use super::world::{Shot, Stop, World, add, host};
use super::{op, policy};

impl World {
    /// As if all backups had been made earlier. What is encrypted cannot be written anew by hand.
    pub fn age(&mut self, hours: u16) -> Result<()> {
        if self.targets.iter().any(|t| t.encrypted) {
            return Ok(());
        }
        for target in &mut self.targets {
            let mut aged = BTreeMap::new();
            for shot in std::mem::take(&mut target.shots).into_values() {
                let old = target.document(&shot)?;
                let mut snapshot: Snapshot = serde_json::from_slice(&fs::read(&old)?)?;
                let time = policy::format(policy::parse(&shot.time) - i64::from(hours) * 3_600_000);
                snapshot.time.clone_from(&time);
                let json = serde_json::to_vec_pretty(&snapshot)?;
                let id = Id::of(&json);
                let name = format!("{}-{id}.json", time.replace(['-', ':', '.'], ""));
                for file in [add(&old, ".par"), old].iter().filter(|f| f.exists()) {
                    fs::remove_file(file)?;
                }
                fs::write(target.below("snapshots").join(name), json)?;
                aged.insert(id, Shot { time, ..shot });
            }
            target.shots = aged;
            target.verdicts.clear();
            target.check()?;
        }
        Ok(())
    }

    /// Prunes, and makes the model do the same. The store may be damaged: then a refusal is right as well.
    pub fn prune(&mut self, prune: &op::Prune, damaged: Option<usize>) -> Result<()> {
        let number = usize::from(prune.target);
        let target = &mut self.targets[number];
        let is_damaged = damaged == Some(number);
        let keep = &prune.keep;
        let options = PruneOptions {
            guests: Policy::GUESTS,
            policy: Policy {
                last: keep[0],
                hourly: keep[1],
                daily: keep[2],
                weekly: keep[3],
                monthly: keep[4],
                yearly: keep[5],
            },
            whose: match prune.whose {
                3 => Whose::Named("one".into()),
                4 => Whose::Named("two".into()),
                n => Whose::This(host(n)),
            },
        };
        let chosen = |shot: &Shot| match &options.whose {
            Whose::Named(name) => shot.host.hostname == *name,
            Whose::This(host) => shot.host == *host,
        };
        let mut sequences: BTreeMap<_, Vec<Id>> = BTreeMap::new();
        for id in target.in_order() {
            let shot = &target.shots[&id];
            if chosen(shot) {
                let trees = if shot.kind == "host" {
                    ""
                } else {
                    &shot.mount_point
                };
                let key = (
                    &shot.host.machine_id,
                    &shot.host.hostname,
                    &shot.kind,
                    trees,
                );
                sequences.entry(key).or_default().push(id);
            }
        }
        let mut going = BTreeSet::new();
        for ids in sequences.values() {
            let points: Vec<policy::Point> = ids
                .iter()
                .map(|id| {
                    (
                        target.shots[id].time.clone(),
                        target.verdicts.get(id) == Some(&true),
                    )
                })
                .collect();
            let stays = policy::stay(&points, keep);
            going.extend(
                ids.iter()
                    .zip(stays)
                    .filter(|(_, stays)| !stays)
                    .map(|(id, _)| *id),
            );
        }
        let stop = Stop::after_questions(prune.cut.map_or(i64::MAX, i64::from));
        let result = target
            .write()
            .and_then(|s| Prune::new(s, &options, &stop))
            .and_then(|p| p.apply(&stop));
        let listed: BTreeSet<Id> = target.listed()?.into_iter().collect();
        match result {
            Ok(done) => {
                let said: BTreeSet<Id> = done.snapshots.into_iter().collect();
                ensure!(
                    said == going,
                    "removed {said:?}, should have removed {going:?}"
                );
                target.shots.retain(|id, _| !going.contains(id));
            }
            Err(Error::Cancelled) if prune.cut.is_some() => {
                target
                    .shots
                    .retain(|id, _| !going.contains(id) || listed.contains(id));
            }
            Err(Error::NoHost { .. }) if sequences.is_empty() || is_damaged => {}
            Err(Error::NotPruned { .. }) if is_damaged => {}
            Err(error) => bail!("{error}"),
        }
        if !is_damaged {
            ensure!(
                listed == target.shots.keys().copied().collect(),
                "listed after pruning: {listed:?}"
            );
        }
        Ok(())
    }
}
