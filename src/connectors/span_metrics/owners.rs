//! Whose rows there are: resources, or services, by what identifies them.

use std::{borrow::Cow, collections::HashSet, hash::BuildHasher};

use hashbrown::HashTable;
use ring::digest;

use super::{
    dimensions::put_text_attribute,
    settings::SERVICE_NAME,
    text::{VALUE_BYTES_MAX, cut, push_value},
};
use crate::{
    otlp::{
        view::{AnyValueView, AttributeView, AttributesView, ResourceView, View},
        wire,
    },
    registry::snapshot::{Damaged, Reader, Writer},
};

const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_INSTANCE_ID: &str = "service.instance.id";

/// What makes two resources one owner.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Identity {
    /// The service's name.
    Service,
    /// All attributes: derived metrics pass them on.
    Attributes,
    /// These attributes.
    Keys(Vec<String>),
    /// Service, job and instance: all that a page shows.
    Target,
}

/// One resource (or service) that has rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Owner {
    pub(super) service: Box<str>,
    pub(super) job: Option<Box<str>>,
    pub(super) instance: Option<Box<str>>,
    /// The encoded `Resource`, as it came first.
    pub(super) resource: Box<[u8]>,
    pub(super) last_unix_nanos: u64,
    /// Grows with every use of any owner.
    pub(super) used: u64,
    /// Rows by stream.
    pub(super) rows: [u32; 3],
    identity: Box<[u8]>,
    pub(super) live: bool,
}

/// A resource's bytes, and whose they are; `None`: they name no service.
#[derive(Debug)]
struct Alias {
    hash: u64,
    bytes: Box<[u8]>,
    owner: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Owners {
    identity: Identity,
    /// Stands in for a missing service name.
    unknown: Option<Box<str>>,
    all: Vec<Owner>,
    vacant: Vec<u32>,
    by_identity: HashTable<u32>,
    aliases: HashTable<Alias>,
    alias_bytes: usize,
    hasher: foldhash::fast::RandomState,
    uses: u64,
    /// Owners made since those without rows were last looked for.
    made: usize,
    cut: u64,
}

/// Beyond either, the aliases are forgotten and learnt anew.
const ALIASES_MAX: usize = 16_384;
const ALIAS_BYTES_MAX: usize = 16 << 20;
/// A resource that is longer is no alias but looked at each time.
const ALIAS_MAX: usize = 1 << 20;
/// Of a resource's attributes so much is kept; each value is cut as a label's is.
const RESOURCE_BYTES_MAX: usize = 16 << 10;
/// A longer identity is kept as its digest.
const IDENTITY_BYTES_MAX: usize = 256;
/// Owners that may have been made before those without rows are taken out.
const WITHOUT_ROWS_MAX: usize = 4000;

/// What a look-up came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) owner: Option<u32>,
    /// It has no service name, whether or not a name stands in.
    pub(super) nameless: bool,
}

impl Owners {
    pub(super) fn new(identity: Identity, unknown: Option<&str>) -> Self {
        Self {
            identity,
            unknown: unknown.map(Into::into),
            all: Vec::new(),
            vacant: Vec::new(),
            by_identity: HashTable::new(),
            aliases: HashTable::new(),
            alias_bytes: 0,
            hasher: foldhash::fast::RandomState::default(),
            uses: 0,
            made: 0,
            cut: 0,
        }
    }

    /// The owner of a resource's encoded bytes.
    pub(super) fn look_up(&mut self, bytes: &[u8], received_unix_nanos: u64) -> Seen {
        let hash = self.hasher.hash_one(bytes);
        let owner = match self.aliases.find(hash, |alias| alias.hash == hash && *alias.bytes == *bytes) {
            Some(alias) => alias.owner,
            None => self.learn(hash, bytes),
        };
        let mut nameless = owner.is_none();
        if let Some(number) = owner
            && let Some(known) = self.all.get_mut(number as usize)
        {
            self.uses += 1;
            known.used = self.uses;
            known.last_unix_nanos = known.last_unix_nanos.max(received_unix_nanos);
            nameless = self.unknown.as_ref().is_some_and(|unknown| *unknown == known.service);
        }
        Seen { owner, nameless }
    }

    fn learn(&mut self, hash: u64, bytes: &[u8]) -> Option<u32> {
        let kept = shortened(bytes, &mut self.cut);
        let owner = self.owner_of(&kept);
        if bytes.len() > ALIAS_MAX {
            return owner;
        }
        if self.aliases.len() >= ALIASES_MAX || self.alias_bytes + bytes.len() > ALIAS_BYTES_MAX {
            self.forget_aliases();
        }
        self.alias_bytes += bytes.len();
        self.aliases.insert_unique(hash, Alias { hash, bytes: bytes.into(), owner }, |alias| alias.hash);
        owner
    }

    fn forget_aliases(&mut self) {
        self.aliases.clear();
        self.alias_bytes = 0;
    }

    fn owner_of(&mut self, bytes: &[u8]) -> Option<u32> {
        let attributes = ResourceView::new(bytes).attributes;
        let name = attributes.get(SERVICE_NAME);
        // The Collector labels rows with the name only where it is a string, and counts them all the same.
        let service = match (name, &self.unknown) {
            (Some(value), unknown) => match (value.as_str(), unknown) {
                (Some("") | None, Some(unknown)) => unknown.clone(),
                (text, _) => text.unwrap_or_default().into(),
            },
            (None, Some(unknown)) => unknown.clone(),
            (None, None) => return None,
        };
        let job = job(attributes, name);
        let instance = attributes.get(SERVICE_INSTANCE_ID).map(text);
        let identity = match &self.identity {
            Identity::Service => service.as_bytes().into(),
            Identity::Attributes => canonical(attributes, |_| true),
            Identity::Keys(keys) => canonical(attributes, |key| keys.iter().any(|wanted| wanted == key)),
            Identity::Target => {
                let mut out = Vec::new();
                wire::put_bytes_always(&mut out, 1, service.as_bytes());
                for (field, value) in [(2, &job), (3, &instance)] {
                    if let Some(value) = value {
                        wire::put_bytes_always(&mut out, field, value.as_bytes());
                    }
                }
                out.into()
            }
        };
        let identity = if identity.len() > IDENTITY_BYTES_MAX {
            digest::digest(&digest::SHA256, &identity).as_ref().into()
        } else {
            identity
        };
        if let Some(known) = self.find(&identity) {
            return Some(known);
        }
        let resource: Box<[u8]> = match self.identity {
            Identity::Service => {
                let mut out = Vec::new();
                put_text_attribute(&mut out, 1, SERVICE_NAME, &service);
                out.into()
            }
            _ => bytes.into(),
        };
        let owner = Owner { service, job, instance, resource, identity, live: true, ..Owner::default() };
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.all.push(Owner::default());
            (self.all.len() - 1) as u32
        });
        if let Some(place) = self.all.get_mut(number as usize) {
            *place = owner;
        }
        self.link(number);
        self.made += 1;
        Some(number)
    }

    fn find(&self, identity: &[u8]) -> Option<u32> {
        let is = |number: &u32| self.all.get(*number as usize).is_some_and(|owner| *owner.identity == *identity);
        self.by_identity.find(self.hasher.hash_one(identity), is).copied()
    }

    fn link(&mut self, number: u32) {
        let Self { by_identity, all, hasher, .. } = self;
        let hash = |number: &u32| all.get(*number as usize).map_or(0, |owner| hasher.hash_one(&*owner.identity));
        by_identity.insert_unique(hash(&number), number, hash);
    }

    fn unlink(&mut self, number: u32) {
        let Some(owner) = self.all.get(number as usize) else { return };
        let hash = self.hasher.hash_one(&*owner.identity);
        if let Ok(entry) = self.by_identity.find_entry(hash, |known| *known == number) {
            entry.remove();
        }
    }

    pub(super) fn get(&self, owner: u32) -> Option<&Owner> {
        self.all.get(owner as usize).filter(|owner| owner.live)
    }

    pub(super) fn get_mut(&mut self, owner: u32) -> Option<&mut Owner> {
        self.all.get_mut(owner as usize).filter(|owner| owner.live)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Owner)> {
        self.all.iter().enumerate().filter(|(_, owner)| owner.live).map(|(number, owner)| (number as u32, owner))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len() - self.vacant.len()
    }

    /// Values cut since the last call.
    pub(super) fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// Writes all that decides what rows are shown as and which number the next owner gets.
    pub(super) fn save(&self, out: &mut Writer) {
        out.number(self.uses);
        out.count(self.made);
        out.count(self.vacant.len());
        self.vacant.iter().for_each(|number| out.number(*number));
        out.count(self.all.len());
        for owner in &self.all {
            out.flag(owner.live);
            if owner.live {
                out.text(&owner.service);
                out.option(owner.job.as_deref(), Writer::text);
                out.option(owner.instance.as_deref(), Writer::text);
                out.bytes(&owner.resource);
                out.number(owner.last_unix_nanos);
                out.number(owner.used);
                out.bytes(&owner.identity);
            }
        }
    }

    /// Takes over what was saved with the same settings. How many rows each has is for [`count`](Self::count) to say.
    pub(super) fn read(&mut self, from: &mut Reader<'_>) -> Result<(), Damaged> {
        *self = Self::new(self.identity.clone(), self.unknown.as_deref());
        self.uses = from.number()?;
        self.made = from.small()?;
        let vacant = from.count(1)?;
        self.vacant = (0..vacant).map(|_| from.small()).collect::<Result<_, _>>()?;
        for number in 0..from.count(1)? {
            let mut owner = Owner { live: from.flag()?, ..Owner::default() };
            if !owner.live {
                self.all.push(owner);
                continue;
            }
            owner.service = from.text()?.into();
            owner.job = from.option(Reader::text)?.map(Into::into);
            owner.instance = from.option(Reader::text)?.map(Into::into);
            owner.resource = from.bytes()?.into();
            owner.last_unix_nanos = from.number()?;
            owner.used = from.number()?;
            owner.identity = from.bytes()?.into();
            if self.find(&owner.identity).is_some() {
                return Err(from.damaged("an owner that is there twice"));
            }
            self.all.push(owner);
            self.link(number as u32);
        }
        let mut seen = HashSet::with_capacity(self.vacant.len());
        let is_vacant = |number: &u32| self.all.get(*number as usize).is_some_and(|owner| !owner.live);
        if !self.vacant.iter().all(|number| is_vacant(number) && seen.insert(*number))
            || seen.len() != self.all.iter().filter(|owner| !owner.live).count()
        {
            return Err(from.damaged("a number of an owner that is not vacant"));
        }
        Ok(())
    }

    /// An owner has one row more in a stream; `None`: there is no such owner.
    pub(super) fn count(&mut self, owner: u32, stream: usize) -> Option<()> {
        let rows = self.get_mut(owner)?.rows.get_mut(stream)?;
        *rows = rows.saturating_add(1);
        Some(())
    }

    /// Whether it is time to take out those that came to nothing.
    pub(super) const fn are_many_without_rows(&self) -> bool {
        self.made >= WITHOUT_ROWS_MAX
    }

    /// Takes out owners without rows, but for those that `stays` names.
    pub(super) fn remove_without_rows(&mut self, stays: impl Fn(u32) -> bool) {
        self.made = 0;
        let empty = self.iter().filter(|(_, owner)| owner.rows.iter().all(|rows| *rows == 0)).map(|(number, _)| number);
        let gone: Vec<u32> = empty.filter(|number| !stays(*number)).collect();
        self.remove(&gone);
    }

    /// The owner that stands for all services whose name was folded.
    pub(super) fn overflow(&mut self, received_unix_nanos: u64) -> Option<u32> {
        let mut resource = Vec::new();
        put_text_attribute(&mut resource, 1, SERVICE_NAME, crate::registry::FOLDED);
        self.look_up(&resource, received_unix_nanos).owner
    }

    /// Takes owners out; their rows must be gone.
    pub(super) fn remove(&mut self, gone: &[u32]) {
        for number in gone {
            if self.get(*number).is_none() {
                continue;
            }
            self.unlink(*number);
            if let Some(owner) = self.all.get_mut(*number as usize) {
                *owner = Owner::default();
                self.vacant.push(*number);
            }
        }
        if !gone.is_empty() {
            self.forget_aliases();
        }
    }

    /// Those that go so that the `keep` most recently used stay.
    pub(super) fn beyond(&self, keep: usize) -> Vec<u32> {
        let mut used: Vec<(u64, u32)> = self.iter().map(|(number, owner)| (owner.used, number)).collect();
        if used.len() <= keep {
            return Vec::new();
        }
        used.sort_unstable();
        used.truncate(used.len() - keep);
        used.into_iter().map(|(_, number)| number).collect()
    }
}

/// `namespace/name`, or the name alone; nothing without a name.
fn job(attributes: AttributesView<'_>, name: Option<AnyValueView<'_>>) -> Option<Box<str>> {
    let name = text(name?);
    Some(match attributes.get(SERVICE_NAMESPACE) {
        Some(namespace) => format!("{}/{name}", text(namespace)).into(),
        None => name,
    })
}

pub(super) fn text(value: AnyValueView<'_>) -> Box<str> {
    let mut out = String::new();
    push_value(&mut out, value);
    out.into()
}

/// A resource whose attributes are as long as they may be; the same bytes where nothing is longer.
fn shortened<'a>(resource: &'a [u8], cuts: &mut u64) -> Cow<'a, [u8]> {
    // Nothing in it can be longer than it is itself.
    if resource.len() <= VALUE_BYTES_MAX {
        return Cow::Borrowed(resource);
    }
    let attributes = ResourceView::new(resource).attributes;
    let is_long = |attribute: &AttributeView<'_>| {
        attribute.key().len() > VALUE_BYTES_MAX || attribute.value_bytes().is_some_and(|value| value.len() > VALUE_BYTES_MAX)
    };
    if resource.len() <= RESOURCE_BYTES_MAX && !attributes.iter().any(|attribute| is_long(&attribute)) {
        return Cow::Borrowed(resource);
    }
    let mut out = Vec::new();
    // What names the service comes first, so that it stays whatever the rest is.
    for wanted in [true, false] {
        for attribute in attributes.iter() {
            let key = attribute.key();
            if matches!(key, SERVICE_NAME | SERVICE_NAMESPACE | SERVICE_INSTANCE_ID) != wanted {
                continue;
            }
            let room = RESOURCE_BYTES_MAX.saturating_sub(out.len());
            if key.len() > VALUE_BYTES_MAX || attribute.bytes().len().min(key.len() + VALUE_BYTES_MAX) > room {
                *cuts += 1;
            } else if is_long(&attribute) {
                *cuts += 1;
                put_text_attribute(&mut out, 1, key, cut(&text(attribute.value())));
            } else {
                wire::put_bytes_always(&mut out, 1, attribute.bytes());
            }
        }
    }
    Cow::Owned(out)
}

/// The attributes in an order of their own, so that the order they came in does not matter.
fn canonical(attributes: AttributesView<'_>, wanted: impl Fn(&str) -> bool) -> Box<[u8]> {
    let mut entries: Vec<(&str, &[u8])> = attributes
        .iter()
        .filter(|attribute| wanted(attribute.key()))
        .map(|attribute| (attribute.key(), attribute.value_bytes().unwrap_or_default()))
        .collect();
    entries.sort_unstable();
    let mut out = Vec::new();
    for (key, value) in entries {
        wire::put_bytes_always(&mut out, 1, key.as_bytes());
        wire::put_bytes_always(&mut out, 2, value);
    }
    out.into()
}
