//! From what runs to another configuration; a start is a change from nothing.
//!
//! What is the same in both runs on untouched. Everything that can fail comes first, beside what runs: building (in `pipeline`), opening topics,
//! binding sockets (those of components that are about to end are taken over). After that nothing fails:
//!
//! 1. Receivers that go answer what they are receiving.
//! 2. Topic after topic, those that receivers feed first: who reads it is changed between two records, so that each record is accepted for the
//!    consumers of before or for those of after. What a topic's old connectors have still to read goes on to the topics behind, before those
//!    are switched.
//! 3. Consumers that go, or whose place another takes, end what is under way, within [`UNDER_WAY`]. A cursor with what it had read goes to the
//!    consumer of the same name. Places of those that go stay on disk; in memory they deliver what they hold, and what is left then is counted.
//! 4. What is new starts: connectors with the state of those before them, consumers, receivers last.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, warn};

use super::{
    Connecting, FINISH, RECEIVERS_GRACE, Receiving, Running, Sending, Unstarted,
    ends::{Done, to_its_end},
    ingest::Ingest,
    owned::{Keeper, Owned, Server},
    reading::{Key, Reading, Wanted, changes_of},
};
use crate::{
    component::{BuiltConnector, Snapshot, Stateful, delivery},
    delivery::{
        Carried, Chain, Consumer, Destination, Ends, Live, Policy, Remembering, Replay, Saver, SharedConnector, Stage, connector,
        consumer_name, exporter,
    },
    door::{self, Behind, Door},
    journal::{Cursor, OnOverflow, Place, Sources, StateFile, Topic, TopicId, Waker},
    otlp::ScanLimits,
    pipeline::{
        Built, BuiltExporter, Changes, ConnectError, Failed, Part, Plan, PlannedConsumer, PlannedTopic, Role, TopicKind, bell,
    },
    runtime::{Shutdown, State, Task, blocking},
    signal::{ComponentId, ContextNeeds, Signal},
};

/// What was started and does not run yet: dropped, it is as if it had never been.
#[derive(Default)]
struct Prepared {
    extensions: BTreeMap<ComponentId, (Shutdown, Option<Task>)>,
    exporters: BTreeMap<ComponentId, (Shutdown, Option<Task>)>,
    receivers: BTreeMap<ComponentId, (Shutdown, Task, Arc<Door>)>,
    /// For what connectors and exporters remember.
    states: BTreeMap<Part, StateFile>,
}

/// What is on its way from those of before to those of after.
#[derive(Default)]
struct Handed {
    /// Places of those that joined topics.
    joined: BTreeMap<Key, Vec<Place>>,
    wakers: BTreeMap<Key, Arc<Waker>>,
    /// In memory mode: what connectors and exporters remember whose place others take. On disk it lies in files.
    snapshots: BTreeMap<Part, Snapshot>,
}

impl Running {
    /// Changes to what was built. `hurry` cuts short what is waited for, and leaves nothing half done.
    ///
    /// # Errors
    /// It does not run: everything is as it was.
    pub async fn change_to(&mut self, mut built: Built, hurry: &Shutdown) -> Result<Changes, Unstarted> {
        let changes = self.definitions.changes_to(&built.definitions);
        built.fits(self.spine.journal.is_some())?;
        blocking(|| self.spine.make_ready(&built.plan))?;
        self.around.sockets.begin(&sections(&changes));
        let prepared = match self.prepare(&mut built, &changes).await {
            Ok(prepared) => prepared,
            Err(unstarted) => {
                self.around.sockets.roll_back();
                return Err(unstarted);
            }
        };
        self.around.sockets.commit();

        // Nothing fails from here on.
        if built.budget_bytes != self.spine.budget.bytes() {
            self.spine.budget.resize(built.budget_bytes);
        }
        self.widen_doors(&built);
        self.close_receivers(&changes, hurry).await;
        let wanted = self.wanted(&mut built);
        let mut handed = self.switch(&built.plan, &changes, &wanted, hurry).await;
        for (id, receiving) in &self.receivers {
            receiving.door.lead_to(self.behind(&built, id));
        }
        self.end_exporters(&changes, &mut handed, hurry).await;
        self.leave_places(&changes);
        self.start_new(built, &changes, prepared, wanted, handed);
        Ok(changes)
    }

    // === what can fail ===

    async fn prepare(&self, built: &mut Built, changes: &Changes) -> Result<Prepared, Unstarted> {
        let mut failed = Vec::new();
        let mut prepared = Prepared::default();
        let is_kept = |part: &Part| changes.kept.contains(part);
        for one in built.extensions.iter().filter(|one| !is_kept(&Part::Extension(one.id.clone()))) {
            let stop = Shutdown::new();
            match one.extension.start(stop.clone()).await {
                Ok(task) => drop(prepared.extensions.insert(one.id.clone(), (stop, task))),
                Err(cause) => failed.push(Failed { kind: "extensions", id: one.id.clone(), cause }),
            }
        }
        for one in built.exporters.iter().filter(|one| !is_kept(&Part::Exporter(one.id.clone()))) {
            let stop = Shutdown::new();
            match one.exporter.start(stop.clone()).await {
                Ok(task) => drop(prepared.exporters.insert(one.id.clone(), (stop, task))),
                Err(cause) => failed.push(Failed { kind: "exporters", id: one.id.clone(), cause }),
            }
        }
        if let Some(journal) = &self.spine.journal {
            let exporters = built.exporters.iter().filter(|one| one.exporter.state().is_some());
            let connectors = built.connectors.iter().filter(|(_, one)| one.connector.state().is_some());
            let remembering = exporters
                .map(|one| ("exporters", &one.id, Part::Exporter(one.id.clone())))
                .chain(connectors.map(|(id, _)| ("connectors", id, Part::Connector(id.clone()))));
            for (kind, id, part) in remembering.filter(|(_, _, part)| !is_kept(part)) {
                let state = journal.state(kind, id).map_err(ConnectError::from)?;
                prepared.states.insert(part, state);
            }
        }
        for (id, receiver) in std::mem::take(&mut built.receivers) {
            if is_kept(&Part::Receiver(id.clone())) {
                continue;
            }
            let door = self.receivers.get(&id).map_or_else(|| self.door(built, &id), |receiving| receiving.door.clone());
            let stop = Shutdown::new();
            match receiver.start(door.clone(), stop.clone()).await {
                Ok(task) => drop(prepared.receivers.insert(id, (stop, task, door))),
                Err(cause) => failed.push(Failed { kind: "receivers", id, cause }),
            }
        }
        if failed.is_empty() { Ok(prepared) } else { Err(Unstarted::Failed(failed)) }
    }

    fn door(&self, built: &Built, id: &ComponentId) -> Arc<Door> {
        let around = &self.around;
        let settings = door::Settings { id: id.clone(), source: self.spine.source(id), limits: ScanLimits::default() };
        let (behind, budget) = (self.behind(built, id), self.spine.budget.clone());
        let door = Door::new(settings, behind, budget, around.clock.clone(), &around.telemetry);
        Arc::new(door.watched(around.taps.clone()))
    }

    /// What a receiver's door leads to.
    fn behind(&self, built: &Built, id: &ComponentId) -> Behind {
        let topics = Signal::ALL.map(|signal| {
            let fits = |planned: &&PlannedTopic| {
                planned.kind == TopicKind::Ingest && planned.signal == signal && planned.sources.contains(id)
            };
            self.spine.topic(&built.plan.topics.iter().find(fits)?.name).cloned()
        });
        Behind {
            takes: Signal::ALL.map(|signal| topics.get(signal.ordinal()).is_some_and(Option::is_some)),
            needs: Arc::new(built.needs.clone()),
            wants_index: built.wants_index,
            append: Arc::new(Ingest { topics }),
        }
    }

    // === from those of before to those of after ===

    /// What is taken from now on may be for those of before or for those of after: it comes with what either reads of it.
    fn widen_doors(&self, built: &Built) {
        for receiving in self.receivers.values() {
            let mut behind = Behind::clone(&receiving.door.behind());
            let mut needs = ContextNeeds::clone(&behind.needs);
            needs.merge(&built.needs);
            (behind.needs, behind.wants_index) = (Arc::new(needs), behind.wants_index || built.wants_index);
            receiving.door.lead_to(behind);
        }
    }

    /// Receivers that go answer what they are receiving, while those who read it are still there.
    async fn close_receivers(&mut self, changes: &Changes, hurry: &Shutdown) {
        let ids: Vec<ComponentId> =
            self.receivers.keys().filter(|id| changes.stopped.contains(&Part::Receiver((*id).clone()))).cloned().collect();
        let mut servers: Vec<Server> = ids.iter().filter_map(|id| self.receivers.remove(id)).map(|it| it.server).collect();
        for server in &servers {
            server.stop.cancel();
        }
        let closing = join_all(servers.iter_mut().map(|server| server.task.wait()));
        let cut = tokio::select! {
            done = timeout(RECEIVERS_GRACE, closing) => done.is_err(),
            () = hurry.cancelled() => true,
        };
        if cut {
            warn!("some requests to receivers that are gone were cut off; they were not acknowledged");
        }
    }

    /// The consumers that the plan asks for. Chains that are the same stay.
    fn wanted(&mut self, built: &mut Built) -> BTreeMap<Key, Wanted> {
        let plan = &built.plan;
        let mut chains = BTreeMap::new();
        let mut batching = BTreeMap::new();
        for (pipeline, chain) in std::mem::take(&mut built.chains) {
            let ends: Vec<_> = plan.consumers.iter().filter(|consumer| consumer.pipeline == pipeline).collect();
            let Some(first) = ends.first() else { continue };
            batching.insert(pipeline.clone(), chain.batching);
            let made = match self.chains.remove(&pipeline) {
                Some((definition, same)) if definition == chain.definition => {
                    same.set_consumers(ends.len());
                    same
                }
                _ => {
                    let stage = |(id, processor): (ComponentId, _)| {
                        let metrics = self.around.telemetry.processor(id.as_str(), first.signal);
                        Stage { processor, metrics }
                    };
                    Arc::new(Chain::new(chain.stages.into_iter().map(stage).collect(), ends.len()))
                }
            };
            chains.insert(pipeline, (chain.definition, made));
        }
        self.chains = chains;

        let lag_bytes = built.lag_bytes.unwrap_or_else(|| self.spine.lag_bytes(plan.topics.len()));
        self.lag_bytes = lag_bytes;
        let on_disk = self.spine.journal.is_some();
        let mut wanted = BTreeMap::new();
        for planned in &plan.consumers {
            let Some((_, chain)) = self.chains.get(&planned.pipeline) else { continue };
            let (mut policy, remembers) = match planned.role {
                Role::Exporter => {
                    let exporter = built.exporters.iter().find(|one| one.id == planned.component);
                    let written = exporter.map(|one| one.delivery.clone()).unwrap_or_default();
                    let batching = batching.get(&planned.pipeline).copied().flatten();
                    (Policy::of(&written, batching, lag_bytes), exporter.is_some_and(|one| one.exporter.state().is_some()))
                }
                Role::Connector => {
                    let connector = built.connectors.iter().find(|(id, _)| *id == planned.component);
                    let mut policy = Policy::of(&delivery::Settings::default(), None, lag_bytes);
                    policy.on_overflow = OnOverflow::HoldDoor;
                    (policy, connector.is_some_and(|(_, one)| one.connector.state().is_some()))
                }
            };
            let is_stateful = on_disk && remembers;
            if is_stateful {
                policy.one_by_one();
            }
            let reads = planned.reads.iter().filter_map(|(topic, sources)| {
                let topic = self.spine.topic(&plan.topics.get(*topic)?.name)?;
                Some((topic.id, Sources::of(sources.iter().map(|id| self.spine.source(id)))))
            });
            let one = Wanted {
                depth: plan.depth(planned),
                policy,
                chain: chain.clone(),
                reads: reads.collect(),
                is_stateful,
                planned: planned.clone(),
            };
            wanted.insert((planned.pipeline.clone(), planned.component.clone()), one);
        }
        wanted
    }

    /// Changes who reads each topic, and ends the connectors that go, or whose place others take.
    async fn switch(&mut self, plan: &Plan, changes: &Changes, wanted: &BTreeMap<Key, Wanted>, hurry: &Shutdown) -> Handed {
        let mut handed = Handed::default();
        let mut by_depth: BTreeMap<usize, Vec<Arc<Topic>>> = BTreeMap::new();
        for topic in self.spine.topics() {
            let depth = [&self.plan, plan].iter().filter_map(|plan| topic_depth(plan, &topic.name)).max();
            by_depth.entry(depth.unwrap_or(0)).or_default().push(topic.clone());
        }
        for (depth, topics) in by_depth {
            for topic in topics {
                let bell = |planned: &PlannedConsumer| bell(planned, &self.around);
                let (told, joining) = changes_of(topic.id, &mut self.consumers, wanted, &mut handed.wakers, bell);
                if !told.is_empty() {
                    let joined = blocking(|| topic.switch(&told));
                    for (key, places) in joining.into_iter().zip(joined) {
                        handed.joined.entry(key).or_default().extend(places);
                    }
                }
            }
            self.end_connectors(depth, changes, &mut handed, hurry).await;
        }
        for (key, reading) in &mut self.consumers {
            if let Some(wanted) = wanted.get(key) {
                (reading.bound, reading.on_overflow) = (wanted.policy.bound, wanted.policy.on_overflow);
                reading.depth = wanted.depth;
            }
        }
        handed
    }

    async fn end_connectors(&mut self, depth: usize, changes: &Changes, handed: &mut Handed, hurry: &Shutdown) {
        let on_disk = self.spine.journal.is_some();
        let here = |key: &Key, reading: &Reading| {
            reading.role == Role::Connector && reading.depth == depth && changes.ends(&consumer(key))
        };
        end(self.consumers.iter_mut().filter(|(key, reading)| here(key, reading)), changes, on_disk, hurry).await;
        let ending = self.connectors.iter_mut().filter(|(_, one)| one.depth == depth);
        for (id, connecting) in ending.filter(|(id, _)| changes.ends(&Part::Connector((*id).clone()))) {
            tokio::select! {
                biased;
                () = connecting.end() => {}
                () = sleep_until(Instant::now() + RECEIVERS_GRACE) => connecting.abort.cancel(),
                () = hurry.cancelled() => connecting.abort.cancel(),
            }
            connecting.end().await;
            let part = Part::Connector(id.clone());
            if let Some(keeper) = connecting.keeper.take() {
                keeper.end().await;
            } else if let (Some(state), true) = (&connecting.shared.state, changes.changed.contains(&part)) {
                handed.snapshots.insert(part, blocking(|| state.snapshot()));
            }
        }
    }

    async fn end_exporters(&mut self, changes: &Changes, handed: &mut Handed, hurry: &Shutdown) {
        let on_disk = self.spine.journal.is_some();
        let here = |key: &Key, reading: &Reading| reading.role == Role::Exporter && changes.ends(&consumer(key));
        end(self.consumers.iter_mut().filter(|(key, reading)| here(key, reading)), changes, on_disk, hurry).await;
        for (id, sending) in &mut self.exporters {
            let part = Part::Exporter(id.clone());
            if !changes.ends(&part) {
                continue;
            }
            if let Some(keeper) = sending.keeper.take() {
                keeper.end().await;
            } else if let (Some(state), true) = (sending.destination.exporter.state(), changes.changed.contains(&part)) {
                handed.snapshots.insert(part, blocking(|| state.snapshot()));
            }
            if timeout(FINISH, sending.destination.exporter.finish()).await.is_err() {
                warn!(exporter = %id, "the exporter did not finish in time");
            }
        }
    }

    /// Consumers that go leave their topics; on disk their places stay.
    fn leave_places(&mut self, changes: &Changes) {
        let gone: Vec<Key> = self.consumers.keys().filter(|key| changes.stopped.contains(&consumer(key))).cloned().collect();
        let mut has_gone = false;
        for key in gone {
            let Some(mut reading) = self.consumers.remove(&key) else { continue };
            has_gone = true;
            self.around.health.forget(Some(&key.0), &key.1);
            if let Some(keeper) = self.keeper(reading.role, &key.1) {
                // Its place is what the state covers: that is all it had, once this is saved.
                keeper.saver.save();
                keeper.saver.readers().remove(&key.0);
            }
            let Some(Done { left, panicked, rest }) = reading.done.take() else { continue };
            if panicked {
                error!(component = %key.1, pipeline = key.0, "a consumer panicked");
            }
            if left.items > 0 {
                error!(
                    component = %left.component,
                    pipeline = left.pipeline,
                    signal = %left.signal,
                    items = left.items,
                    "not delivered before its consumer went: these items were accepted and are lost"
                );
            }
            if let Some((consumer, _)) = rest {
                consumer.cursor.leave();
            }
            if let Some(takers) = &self.spine.takers {
                takers.remove(&consumer_name(&key.1, &key.0));
            }
        }
        if let Some(journal) = self.spine.journal.as_ref().filter(|_| has_gone) {
            blocking(|| journal.warn_of_strangers());
        }
    }

    fn keeper(&self, role: Role, id: &ComponentId) -> Option<&Keeper> {
        match role {
            Role::Exporter => self.exporters.get(id).and_then(|sending| sending.keeper.as_ref()),
            Role::Connector => self.connectors.get(id).and_then(|connecting| connecting.keeper.as_ref()),
        }
    }

    // === what is new ===

    fn start_new(
        &mut self,
        built: Built,
        changes: &Changes,
        mut prepared: Prepared,
        wanted: BTreeMap<Key, Wanted>,
        mut handed: Handed,
    ) {
        let Built { plan, definitions, extensions, exporters, connectors, .. } = built;
        self.around.extensions.lock().clone_from(&extensions);
        let ids: Vec<ComponentId> = self.extensions.keys().cloned().collect();
        for id in ids.into_iter().filter(|id| changes.ends(&Part::Extension(id.clone()))) {
            if let Some((_, server)) = self.extensions.remove(&id) {
                self.let_finish(server);
            }
            self.around.health.forget(None, &id);
        }
        for one in extensions {
            if let Some((stop, task)) = prepared.extensions.remove(&one.id) {
                self.around.health.report(None, &one.id, State::Ok);
                let server = Server::run("extensions", &one.id, stop, task);
                self.extensions.insert(one.id, (one.extension, server));
            }
        }

        let mut begun: BTreeMap<Part, Remembering> = BTreeMap::new();
        let ids: Vec<ComponentId> = self.exporters.keys().cloned().collect();
        for id in ids.into_iter().filter(|id| changes.ends(&Part::Exporter(id.clone()))) {
            if let Some(sending) = self.exporters.remove(&id) {
                self.let_finish(sending.server);
            }
        }
        for one in exporters {
            let Some((stop, task)) = prepared.exporters.remove(&one.id) else { continue };
            let part = Part::Exporter(one.id.clone());
            self.remember(&part, &one.id, one.exporter.state(), false, &mut prepared.states, &mut handed.snapshots, &mut begun);
            let server = Server::run("exporters", &one.id, stop, task);
            let destination = self.destination(one);
            self.exporters.insert(destination.id.clone(), Sending { destination, server, keeper: None });
        }
        let ids: Vec<ComponentId> = self.connectors.keys().cloned().collect();
        for id in ids.into_iter().filter(|id| changes.ends(&Part::Connector(id.clone()))) {
            self.connectors.remove(&id);
        }
        for (id, one) in connectors {
            let depth = plan.connectors.iter().find(|planned| planned.id == id).map_or(0, |planned| planned.depth);
            if let Some(connecting) = self.connectors.get_mut(&id) {
                connecting.depth = depth;
                continue;
            }
            let (part, state, flushes) = (Part::Connector(id.clone()), one.connector.state(), one.flush_interval.is_some());
            self.remember(&part, &id, state, flushes, &mut prepared.states, &mut handed.snapshots, &mut begun);
            let saver = begun.get(&part).map(Remembering::saver);
            let connecting = self.connect(&id, one, depth, &plan, saver);
            self.connectors.insert(id, connecting);
        }
        for (id, sending) in &self.exporters {
            let renders = |connector: &ComponentId| {
                plan.consumers.iter().any(|consumer| consumer.component == *id && consumer.renders.contains(connector))
            };
            let pages = self.connectors.iter().filter(|(connector, _)| renders(connector));
            sending.destination.exporter.show_pages(pages.filter_map(|(_, connecting)| connecting.page.clone()).collect());
        }

        for (key, wanted) in wanted {
            if !changes.kept.contains(&consumer(&key)) {
                self.read(key, wanted, &mut handed, &mut begun);
            }
        }
        *self.books.lock() = self.consumers.values().map(Reading::account).collect();
        for connecting in self.connectors.values_mut() {
            connecting.begin_flushes();
        }
        for (part, remembering) in begun {
            let (stop, saver) = (Shutdown::new(), remembering.saver());
            let keeper = Keeper { task: Owned::spawn(remembering.run(stop.clone())), stop, saver };
            match &part {
                Part::Exporter(id) => self.exporters.get_mut(id).map(|sending| sending.keeper = Some(keeper)),
                Part::Connector(id) => self.connectors.get_mut(id).map(|connecting| connecting.keeper = Some(keeper)),
                _ => None,
            };
        }
        for (id, (stop, task, door)) in prepared.receivers {
            let server = Server::run("receivers", &id, stop, Some(task));
            // The new one takes connections already: whoever is asked to go by the old one finds it.
            if let Some(before) = self.receivers.insert(id, Receiving { door, server }) {
                self.let_finish(before.server);
            }
        }
        (self.plan, self.definitions) = (plan, definitions);
    }

    /// It ends, in its own time.
    fn let_finish(&mut self, mut server: Server) {
        server.stop.cancel();
        while self.leaving.try_join_next().is_some() {}
        self.leaving.spawn(async move { drop(server.task.wait().await) });
    }

    fn destination(&self, built: BuiltExporter) -> Arc<Destination> {
        let around = &self.around;
        Arc::new(Destination {
            exporter: built.exporter,
            breakers: Default::default(),
            metrics: around.telemetry.exporter(built.id.as_str()),
            dead_letters: self.spine.dead_letters.clone(),
            journal: self.spine.id,
            health: around.health.clone(),
            splits_by_context: built.splits_by_context,
            clock: around.clock.clone(),
            taps: around.taps.clone(),
            id: built.id,
        })
    }

    fn connect(
        &self,
        id: &ComponentId,
        built: BuiltConnector,
        depth: usize,
        plan: &Plan,
        saver: Option<Arc<Saver>>,
    ) -> Connecting {
        let kind = TopicKind::Derived(id.clone());
        let outputs = plan.topics.iter().filter(|planned| planned.kind == kind);
        let shared = SharedConnector {
            state: built.connector.state(),
            connector: Mutex::new(built.connector),
            source: self.spine.source(id),
            outputs: outputs.filter_map(|planned| self.spine.topic(&planned.name)).cloned().collect(),
            dead_letters: self.spine.dead_letters.clone(),
            clock: self.around.clock.clone(),
            flush_interval: built.flush_interval,
            saver,
            taps: self.around.taps.clone(),
        };
        Connecting {
            shared: Arc::new(shared),
            page: built.page,
            depth,
            stop: Shutdown::new(),
            abort: Shutdown::new(),
            flushes: Owned::default(),
            flushing: false,
            keeper: None,
        }
    }

    /// Brings back what one remembers: from its file, or from the one whose place it takes.
    fn remember(
        &self,
        part: &Part,
        id: &ComponentId,
        state: Option<Arc<dyn Stateful>>,
        flushes: bool,
        files: &mut BTreeMap<Part, StateFile>,
        snapshots: &mut BTreeMap<Part, Snapshot>,
        begun: &mut BTreeMap<Part, Remembering>,
    ) {
        let Some(state) = state else { return };
        if let (Some(journal), Some(file)) = (&self.spine.journal, files.remove(part)) {
            let journal = journal.clone();
            let pressure = Arc::new(move || journal.pressure());
            let remembering = Remembering::begin(id.clone(), state, file, self.spine.names.clone(), pressure, flushes);
            begun.insert(part.clone(), remembering);
        } else if let Some(snapshot) = snapshots.remove(part)
            && let Err(reason) = blocking(|| state.restore(&snapshot))
        {
            warn!(component = %id, %reason, "what it remembered does not fit its new settings: its numbers begin anew, with a new start time");
        }
    }

    /// Where dead letters of a consumer come from that are sent once more; what remembers which records it had takes none.
    fn replays(&self, planned: &PlannedConsumer, is_stateful: bool) -> Option<Receiver<Replay>> {
        let takers = self.spine.takers.as_ref()?;
        let name = planned.subscriber_name().into();
        if planned.role == Role::Exporter && !is_stateful {
            return Some(takers.taker(name));
        }
        takers.refuser(name);
        None
    }

    /// Runs a consumer, in the place of the one of this name that ended, if there was one.
    fn read(&mut self, key: Key, wanted: Wanted, handed: &mut Handed, begun: &mut BTreeMap<Part, Remembering>) {
        let Wanted { planned, depth, policy, chain, reads, is_stateful } = wanted;
        let places = handed.joined.remove(&key).unwrap_or_default();
        let before = self.consumers.remove(&key);
        let rest = before.and_then(|reading| {
            let Done { panicked, rest, .. } = reading.done?;
            if panicked {
                self.broken = Some(format!("the consumer {} in pipeline {} panicked", key.1, key.0));
            }
            rest
        });
        let (cursor, carried, replays) = if let Some((Consumer { mut cursor, replays, .. }, carried)) = rest {
            cursor.join(places);
            let parted: Vec<TopicId> =
                cursor.seats().into_iter().map(|(topic, _)| topic).filter(|topic| !reads.contains_key(topic)).collect();
            for topic in parted {
                cursor.part(topic);
            }
            (cursor, carried, replays)
        } else {
            let cursor = Cursor::new(places, handed.wakers.remove(&key).unwrap_or_default());
            (cursor, Carried::default(), self.replays(&planned, is_stateful))
        };
        let pipeline: Arc<str> = key.0.as_str().into();
        if is_stateful {
            let part =
                if planned.role == Role::Exporter { Part::Exporter(key.1.clone()) } else { Part::Connector(key.1.clone()) };
            if let Some(remembering) = begun.get_mut(&part) {
                remembering.reader(pipeline.clone(), &cursor);
            } else if let Some(keeper) = self.keeper(planned.role, &key.1) {
                keeper.saver.readers().remove(&key.0);
                keeper.saver.readers().add(pipeline.clone(), cursor.marks());
            }
        }
        self.around.health.report(Some(&pipeline), &key.1, State::Ok);
        let mut reading = Reading {
            pipeline: pipeline.clone(),
            id: key.1.clone(),
            signal: planned.signal,
            role: planned.role,
            depth,
            reads: cursor
                .seats()
                .into_iter()
                .filter_map(|(topic, seat)| Some((topic, (seat, reads.get(&topic)?.clone()))))
                .collect(),
            bound: policy.bound,
            on_overflow: policy.on_overflow,
            waker: cursor.waker().clone(),
            accounts: cursor.accounts(),
            ends: Ends::default(),
            task: Owned::default(),
            done: None,
        };
        let live = Arc::new(Live::new(pipeline.clone(), key.1.clone(), planned.signal, &cursor));
        self.around.board.consumer(&live);
        let consumer = Consumer { pipeline, id: key.1.clone(), signal: planned.signal, cursor, chain, replays, live };
        let ends = reading.ends.clone();
        match planned.role {
            Role::Exporter => {
                let Some(sending) = self.exporters.get(&key.1) else { return };
                consumer.live.leads_to(sending.destination.clone());
                let run = exporter::run(consumer, sending.destination.clone(), policy, carried, ends);
                reading.task = Owned::spawn(to_its_end(reading.account(), run));
            }
            Role::Connector => {
                let Some(connecting) = self.connectors.get(&key.1) else { return };
                let run = connector::run(consumer, connecting.shared.clone(), carried, ends);
                reading.task = Owned::spawn(to_its_end(reading.account(), run));
            }
        }
        self.consumers.insert(key, reading);
    }
}

impl Connecting {
    /// After its readers run: what is flushed at once is told of what they read.
    fn begin_flushes(&mut self) {
        if !self.flushing {
            self.flushing = true;
            self.flushes = Owned::spawn(self.shared.clone().run_flushes(self.stop.clone(), self.abort.clone()));
        }
    }
}

fn consumer(key: &Key) -> Part {
    Part::Consumer { pipeline: key.0.clone(), id: key.1.clone() }
}

/// Keys of the components that are about to end begin like this.
fn sections(changes: &Changes) -> Vec<String> {
    let ending = changes.changed.iter().chain(&changes.stopped);
    ending.filter(|part| !matches!(part, Part::Consumer { .. })).map(|part| format!("{part}::")).collect()
}

/// How many connectors lie before a topic.
fn topic_depth(plan: &Plan, name: &str) -> Option<usize> {
    match &plan.topics.iter().find(|planned| planned.name == name)?.kind {
        TopicKind::Ingest => Some(0),
        TopicKind::Derived(id) => plan.connectors.iter().find(|planned| planned.id == *id).map(|planned| planned.depth + 1),
    }
}

/// Ends consumers: those whose place others take hand over what they have; exporters' that go do so too on disk, and in memory deliver it.
async fn end<'r>(ending: impl Iterator<Item = (&'r Key, &'r mut Reading)>, changes: &Changes, on_disk: bool, hurry: &Shutdown) {
    let since = Instant::now();
    let told = ending.map(|(key, reading)| {
        let goes = changes.stopped.contains(&consumer(key));
        // A connector has nobody to wait for: it takes what was for it.
        let drains = goes && (!on_disk || reading.role == Role::Connector);
        if drains { &reading.ends.drain } else { &reading.ends.release }.cancel();
        reading
    });
    // Told all at once, before any is waited for.
    let told: Vec<&mut Reading> = told.collect();
    join_all(told.into_iter().map(|reading| reading.wait_a_while(since, hurry))).await;
}
