//! A budget of rows, and what happens when it runs out: the one label that explodes is folded to a single value, the others stay, and
//! every total stays exact.
//!
//! There is a budget for each owner and one for all. At a part of it a warning is due; when it is reached, the label is looked for whose
//! folding would leave the fewest rows. Rows that exist keep counting; only new ones are folded. A fold holds for a time, so that series
//! do not come and go.

use std::hash::BuildHasher;

use hashbrown::{HashMap, HashSet};

use super::snapshot::{Damaged, Reader, Writer};

/// What a folded label says.
pub const FOLDED: &str = "__overflow__";

/// The labels a guard tells apart; those beyond share the last number.
const LABELS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardLimits {
    pub rows_max: usize,
    pub rows_per_owner_max: usize,
    /// Part of a budget, 0 to 1.
    pub warn_at: f64,
    pub hold_nanos: u64,
}

impl GuardLimits {
    /// Nothing is ever folded.
    pub const NONE: Self = Self { rows_max: usize::MAX, rows_per_owner_max: usize::MAX, warn_at: 1.0, hold_nanos: 0 };
}

/// Which budget: that of all rows or of one owner's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    All,
    Owner(u32),
}

/// What to do about a row that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Make it, with the labels of these numbers (bits) folded.
    Make(u64),
    /// Make it, and say that this budget is about to run out.
    Warn(Scope, u64),
    /// This budget is used up: look for the label to fold ([`explosive`]), tell [`Guard::fold`], ask again.
    Choose(Scope),
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Folds {
    labels: u64,
    since_unix_nanos: u64,
    /// Rows at which one more label is folded; 0 as long as none is.
    next_at: usize,
    warned: bool,
}

impl Folds {
    const BYTES_MIN: usize = 4;

    fn save(&self, out: &mut Writer) {
        out.number(self.labels);
        out.number(self.since_unix_nanos);
        out.count(self.next_at);
        out.flag(self.warned);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, Damaged> {
        Ok(Self { labels: from.number()?, since_unix_nanos: from.number()?, next_at: from.small()?, warned: from.flag()? })
    }
}

/// Keeps the budgets of one store.
#[derive(Debug)]
pub struct Guard {
    limits: GuardLimits,
    all: Folds,
    owners: HashMap<u32, Folds>,
    names: Vec<Box<str>>,
    demand: Vec<Demand>,
}

impl Guard {
    pub fn new(limits: GuardLimits) -> Self {
        Self { limits, all: Folds::default(), owners: HashMap::new(), names: Vec::new(), demand: Vec::new() }
    }

    /// The number of a label, 0 to 63.
    pub fn label(&mut self, name: &str) -> u32 {
        if self.names.len() + 1 < LABELS_MAX && !self.names.iter().any(|known| **known == *name) {
            self.names.push(name.into());
            self.demand.push(Demand::default());
        }
        self.label_of(name)
    }

    /// The number of a label that [`label`](Self::label) knows; others share the last one.
    pub fn label_of(&self, name: &str) -> u32 {
        self.names.iter().position(|known| **known == *name).map_or(LABELS_MAX as u32 - 1, |number| number as u32)
    }

    pub fn name(&self, label: u32) -> &str {
        self.names.get(label as usize).map_or("others", |name| name)
    }

    /// `owner_rows` and `rows` are the counts before the new row.
    pub fn ask(&mut self, owner: u32, owner_rows: usize, rows: usize) -> Verdict {
        let owners = self.owners.entry(owner).or_default();
        let warn_at = |max: usize| (max as f64 * self.limits.warn_at) as usize;
        let budgets = [
            (Scope::Owner(owner), owner_rows, self.limits.rows_per_owner_max, owners),
            (Scope::All, rows, self.limits.rows_max, &mut self.all),
        ];
        let labels = budgets.iter().fold(0, |labels, (_, _, _, folds)| labels | folds.labels);
        let mut verdict = Verdict::Make(labels);
        for (scope, rows, max, folds) in budgets {
            if rows >= max.max(folds.next_at) {
                return Verdict::Choose(scope);
            }
            if rows + 1 >= warn_at(max) && !folds.warned {
                folds.warned = true;
                verdict = Verdict::Warn(scope, labels);
            }
        }
        verdict
    }

    /// Folds a label from now on. `None`: there is none left to fold, the budget is raised by a tenth.
    pub fn fold(&mut self, scope: Scope, label: Option<u32>, rows: usize, now_unix_nanos: u64) {
        let (folds, max) = match scope {
            Scope::All => (&mut self.all, self.limits.rows_max),
            Scope::Owner(owner) => (self.owners.entry(owner).or_default(), self.limits.rows_per_owner_max),
        };
        folds.labels |= label.map_or(0, |label| 1 << label);
        folds.since_unix_nanos = now_unix_nanos;
        // The folded rows need some room themselves before the next label is looked at.
        folds.next_at = rows + (max / 10).max(16);
    }

    /// The labels that are folded in a scope.
    pub fn folded(&self, scope: Scope) -> u64 {
        match scope {
            Scope::All => self.all.labels,
            Scope::Owner(owner) => self.owners.get(&owner).map_or(0, |folds| folds.labels),
        }
    }

    /// How many owners (or all of them together) have each label folded: (name, how often).
    pub fn folds(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().enumerate().map(|(number, name)| {
            let folded = |folds: &&Folds| folds.labels & (1 << number) != 0;
            (&**name, self.owners.values().chain([&self.all]).filter(folded).count())
        })
    }

    /// Notes a label's value, for the estimate of how many there are.
    pub fn note(&mut self, label: u32, value_hash: u64) {
        if let Some(demand) = self.demand.get_mut(label as usize) {
            demand.note(value_hash);
        }
    }

    /// How many values of each label were asked for since it was first seen, folded ones included: (name, estimate, within 4 %).
    pub fn demand(&self) -> impl Iterator<Item = (&str, f64)> {
        self.names.iter().zip(&self.demand).map(|(name, demand)| (&**name, demand.estimate()))
    }

    /// Forgets an owner's folds: its number will be another's.
    pub fn forget(&mut self, owner: u32) {
        self.owners.remove(&owner);
    }

    pub fn save(&self, out: &mut Writer) {
        self.all.save(out);
        let mut owners: Vec<(&u32, &Folds)> = self.owners.iter().collect();
        owners.sort_unstable_by_key(|(owner, _)| **owner);
        out.count(owners.len());
        for (owner, folds) in owners {
            out.number(*owner);
            folds.save(out);
        }
        out.count(self.names.len());
        for (name, demand) in self.names.iter().zip(&self.demand) {
            out.text(name);
            out.raw(&demand.registers);
        }
    }

    /// Takes over what was saved by a guard of the same labels; its own limits stay.
    pub fn read(&mut self, from: &mut Reader<'_>) -> Result<(), Damaged> {
        let all = Folds::read(from)?;
        let count = from.count(1 + Folds::BYTES_MIN)?;
        let owners = (0..count).map(|_| Ok((from.small()?, Folds::read(from)?))).collect::<Result<_, Damaged>>()?;
        if from.count(1 << REGISTERS_LOG2)? != self.names.len() {
            return Err(from.damaged("other labels than there are"));
        }
        let mut demand = Vec::with_capacity(self.names.len());
        for name in &self.names {
            if from.text()? != &**name {
                return Err(from.damaged("another label than there is"));
            }
            demand.push(Demand { registers: from.raw(1 << REGISTERS_LOG2)?.into() });
        }
        (self.all, self.owners, self.demand) = (all, owners, demand);
        Ok(())
    }

    /// Lifts folds that have held long enough where the rows are down to six tenths of the budget, and forgets owners without rows.
    pub fn relax(&mut self, now_unix_nanos: u64, rows: usize, owner_rows: impl Fn(u32) -> usize) {
        let limits = self.limits;
        let relaxed = |folds: &mut Folds, rows: usize, max: usize| {
            let low = rows * 10 < max * 6;
            if low && now_unix_nanos.saturating_sub(folds.since_unix_nanos) >= limits.hold_nanos {
                *folds = Folds::default();
            }
        };
        relaxed(&mut self.all, rows, limits.rows_max);
        self.owners.retain(|owner, folds| {
            let rows = owner_rows(*owner);
            relaxed(folds, rows, limits.rows_per_owner_max);
            rows > 0 || folds.labels != 0
        });
    }
}

/// The label whose folding leaves the fewest rows. `rows` gives each row's labels as (number, hash of the value); labels in `not` are no
/// candidates. Of labels that leave equally few, the one with the most values.
pub fn explosive<R, L>(rows: R, not: u64) -> Option<u32>
where
    R: Iterator<Item = L>,
    L: AsRef<[(u32, u64)]>,
{
    let hasher = foldhash::fast::FixedState::with_seed(7);
    let mut left: HashMap<u32, (HashSet<u64>, HashSet<u64>)> = HashMap::new();
    for row in rows {
        let labels = row.as_ref();
        // A sum, so that one label can be taken out again.
        let whole = labels.iter().fold(0_u64, |sum, label| sum.wrapping_add(hasher.hash_one(label)));
        for label in labels.iter().filter(|(number, _)| not & (1 << number) == 0) {
            let (without, values) = left.entry(label.0).or_default();
            without.insert(whole.wrapping_sub(hasher.hash_one(label)));
            values.insert(label.1);
        }
    }
    let most_left = left.values().map(|(_, values)| values.len()).max()?;
    if most_left < 2 {
        return None;
    }
    let best = left.into_iter().min_by_key(|(_, (without, values))| (without.len(), usize::MAX - values.len()));
    best.map(|(label, _)| label)
}

/// How many different values there were: HyperLogLog with 2^10 registers.
#[derive(Debug, Clone)]
struct Demand {
    registers: Box<[u8]>,
}

const REGISTERS_LOG2: u32 = 10;

impl Default for Demand {
    fn default() -> Self {
        Self { registers: vec![0; 1 << REGISTERS_LOG2].into() }
    }
}

impl Demand {
    fn note(&mut self, hash: u64) {
        let register = (hash >> (64 - REGISTERS_LOG2)) as usize;
        let rank = ((hash << REGISTERS_LOG2) | 1 << (REGISTERS_LOG2 - 1)).leading_zeros() as u8 + 1;
        if let Some(seen) = self.registers.get_mut(register) {
            *seen = (*seen).max(rank);
        }
    }

    fn estimate(&self) -> f64 {
        let m = self.registers.len() as f64;
        let raw =
            0.7213 / (1.0 + 1.079 / m) * m * m / self.registers.iter().map(|rank| 0.5_f64.powi((*rank).into())).sum::<f64>();
        let empty = self.registers.iter().map(|rank| usize::from(*rank == 0)).sum::<usize>();
        // Few values: count by the registers that are still empty.
        if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw }
    }
}
