//! Exports of stored data as streamed JSON: of a contact for the person, of a tenant for the platform.
//!
//! A piece is sent before the next is read, with backpressure from a slow reader, so an export uses the memory of one
//! page of rows, whatever its length. An interrupted export ends with an error and without its last brace: a truncated
//! document is not valid JSON. The audit log holds the begin of an export before anything is read, and its number of
//! records at its end.
//!
//! The export of a contact is one document. That of a tenant has a line for each item (<https://jsonlines.org>), with
//! its `kind`.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use heddle_actors::audience;
use heddle_actors::conversation::export::{Page, Reading};
use heddle_actors::conversation::thread::ThreadError;
use heddle_actors::intake::consent;
use heddle_actors::privacy::erasure;
use heddle_actors::tenant::quota;
use heddle_api::audiences::Audience;
use heddle_api::content::{BoxError, Pieces};
use heddle_schemas::audit::{Act, Outcome, What};
use heddle_schemas::id::{ContactId, TenantId};
use heddle_schemas::ports::state::Walk;
use heddle_schemas::table::{ExportedPart, Key, Section, Table};
use heddle_schemas::tenant::Tenant;
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::subject::Person;
use super::{Call, Caller, OperationError, Operations};
use crate::usage;

/// Approximate size of a piece, in bytes.
const PIECE: usize = 64 << 10;
/// Maximum number of pieces that wait for the reader.
const PIECES: usize = 2;
/// Entries of the audit log per page.
const ENTRIES: usize = 500;
/// Rows per page of a scan.
const ROWS: usize = 256;
/// Documents per page: each can have several MiB.
const DOCUMENTS: usize = 4;

/// Reason for an interrupted export.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The reader has disconnected.
    Unread,
    Failed(OperationError),
}

impl<E: Into<OperationError>> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Writer of a streamed answer.
pub(super) struct Writer {
    pieces: mpsc::Sender<Result<Bytes, OperationError>>,
    buffer: Vec<u8>,
    /// Number of items written.
    pub(super) records: u64,
}

impl Writer {
    /// Creates a writer, and the stream of what it writes.
    pub(super) fn channel() -> (Self, Pieces) {
        let (pieces, written) = mpsc::channel(PIECES);
        let written =
            futures::stream::unfold(written, async |mut pieces| Some((pieces.recv().await?, pieces)));
        let written =
            written.map(|piece: Result<Bytes, OperationError>| piece.map_err(BoxError::from)).boxed();
        (Self { pieces, buffer: Vec::new(), records: 0 }, written)
    }

    /// Ends the stream with an error.
    pub(super) async fn fail(&mut self, error: OperationError) {
        // Fails only if the reader has disconnected.
        let _ = self.pieces.send(Err(error)).await;
    }

    pub(super) async fn put(&mut self, text: &str) -> Result<(), Stopped> {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() < PIECE { Ok(()) } else { self.flush().await }
    }

    async fn value(&mut self, value: &(impl Serialize + Sync)) -> Result<(), Stopped> {
        serde_json::to_writer(&mut self.buffer, value).expect("an exported item always serializes to JSON");
        self.put("").await
    }

    /// Writes a field of the current document.
    async fn field(&mut self, name: &str, value: &(impl Serialize + Sync)) -> Result<(), Stopped> {
        self.put(&format!(",\n\"{name}\":")).await?;
        self.value(value).await
    }

    /// Writes items of the current list.
    async fn items(&mut self, first: &mut bool, items: &[impl Serialize + Sync]) -> Result<(), Stopped> {
        for item in items {
            self.put(if std::mem::take(first) { "\n" } else { ",\n" }).await?;
            self.value(item).await?;
            self.records += 1;
        }
        Ok(())
    }

    /// Writes one line.
    pub(super) async fn line(&mut self, line: serde_json::Value) -> Result<(), Stopped> {
        self.value(&line).await?;
        self.records += 1;
        self.put("\n").await
    }

    pub(super) async fn flush(&mut self) -> Result<(), Stopped> {
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.pieces.send(Ok(piece)).await.map_err(|_| Stopped::Unread)
    }
}

/// Returns the lists of an exported conversation, in order.
fn parts() -> Vec<ExportedPart> {
    let section = |table: Table| table.descriptor().export.of_contact();
    let mut parts: Vec<_> = Table::ALL.into_iter().filter_map(section).filter_map(part_of).collect();
    parts.sort();
    parts
}

fn part_of(section: Section) -> Option<ExportedPart> {
    match section {
        Section::Part(part) => Some(part),
        _ => None,
    }
}

/// Returns the name of a list in a document, and the kind of its items in lines.
fn names(part: ExportedPart) -> (&'static str, &'static str) {
    match part {
        ExportedPart::Thread => ("thread", "entry"),
        ExportedPart::Deliveries => ("deliveries", "delivery"),
        ExportedPart::Tools => ("tools", "tool"),
        ExportedPart::Waiting => ("waiting", "waiting"),
    }
}

/// Subject of an export.
enum Of {
    Person(Person),
    Tenant(Arc<Tenant>),
}

impl Of {
    fn tenant(&self) -> &TenantId {
        match self {
            Self::Person(person) => &person.tenant.id,
            Self::Tenant(tenant) => &tenant.id,
        }
    }

    fn contact(&self) -> Option<ContactId> {
        match self {
            Self::Person(person) => Some(person.contact),
            Self::Tenant(_) => None,
        }
    }

    fn what(&self) -> What {
        self.contact().map_or(What::TenantExport, |contact| What::ContactExport { contact })
    }
}

impl Operations {
    /// Exports all data stored for a person, decrypted.
    pub(super) fn export_contact(&self, call: Call<'_>, person: &Person) -> Pieces {
        self.begin(call, Of::Person(person.clone()))
    }

    /// Exports all data stored for a tenant, decrypted, without its secrets.
    pub(super) fn export_tenant(&self, call: Call<'_>, tenant: Arc<Tenant>) -> Pieces {
        self.begin(call, Of::Tenant(tenant))
    }

    fn begin(&self, call: Call<'_>, of: Of) -> Pieces {
        let (writer, written) = Writer::channel();
        tokio::spawn(self.clone().write(of, call.caller.clone(), call.began, writer));
        written
    }

    async fn write(self, of: Of, caller: Caller, began: Option<u64>, mut writer: Writer) {
        let written = match &of {
            Of::Person(person) => self.contact_into(&mut writer, person).await,
            Of::Tenant(tenant) => self.tenant_into(&mut writer, tenant).await,
        };
        let written = match written {
            Ok(()) => writer.flush().await,
            failed => failed,
        };
        self.exported(of.tenant(), of.contact(), writer.records);
        let Caller { who, why, .. } = caller;
        let outcome = if written.is_ok() { Outcome::Done } else { Outcome::Failed };
        let act = Act { who, what: of.what(), why, outcome, began, records: Some(writer.records) };
        if let Err(error) = self.audit.append(Some(of.tenant()), act).await {
            // The audit log already holds the begin of the export.
            tracing::error!(%error, began, tenant = %of.tenant(), "audit write failed: the end of an export is missing");
        }
        if let Err(Stopped::Failed(error)) = written {
            tracing::warn!(%error, tenant = %of.tenant(), "an export was interrupted");
            writer.fail(error).await;
        }
    }

    async fn contact_into(&self, writer: &mut Writer, person: &Person) -> Result<(), Stopped> {
        let (tenant, contact) = (&person.tenant.id, person.contact);
        let is_one = |other: ContactId| other == contact || person.also.contains(&other);
        writer.put("{\"tenant\":").await?;
        writer.value(tenant).await?;
        writer.field("contact", &contact).await?;
        writer.field("at", &self.ports.clock.now()).await?;
        writer.put(",\n\"conversations\":[").await?;
        let mut first = true;
        for id in person.conversations() {
            let Some(reading) = Reading::begin(&self.ports, &id).await? else { continue };
            writer.put(if std::mem::take(&mut first) { "\n" } else { ",\n" }).await?;
            self.conversation_into(writer, &reading).await?;
        }
        writer.put("]").await?;
        writer.field("consents", &self.consents_of(tenant, contact).await?).await?;
        writer.field("audiences", &audience::of_contact(&self.ports, tenant, contact).await?).await?;
        writer.put(",\n\"erasures\":[").await?;
        let (mut first, mut after) = (true, None);
        loop {
            let page = erasure::page(&self.ports, tenant, after.as_ref()).await?;
            let of_contact: Vec<_> =
                page.items.into_iter().filter(|erasure| erasure.contacts().any(is_one)).collect();
            writer.items(&mut first, &of_contact).await?;
            after = page.after;
            if after.is_none() {
                break;
            }
        }
        writer.put("],\n\"audit\":[").await?;
        let (mut first, mut from) = (true, 1);
        loop {
            let entries = self.audit.entries(Some(tenant), from, ENTRIES).await?;
            let Some(last) = entries.last().map(|entry| entry.body.number) else { break };
            let about: Vec<_> = entries
                .into_iter()
                .filter(|entry| entry.body.act.what.contact().is_some_and(is_one))
                .collect();
            writer.items(&mut first, &about).await?;
            from = last + 1;
        }
        writer.put("]}\n").await
    }

    async fn conversation_into(&self, writer: &mut Writer, reading: &Reading) -> Result<(), Stopped> {
        let kept = serde_json::to_string(&reading.kept).expect("an exported item always serializes to JSON");
        // The lists follow before the closing brace.
        writer.put(kept.strip_suffix('}').expect("it is an object")).await?;
        for part in parts() {
            writer.put(&format!(",\n\"{}\":[", names(part).0)).await?;
            let (mut first, mut after) = (true, None);
            loop {
                let page = self.part(reading, part, after.as_ref()).await?;
                writer.items(&mut first, &page.items).await?;
                after = page.after;
                if after.is_none() {
                    break;
                }
            }
            writer.put("]").await?;
        }
        writer.put("}").await
    }

    async fn part(
        &self,
        reading: &Reading,
        part: ExportedPart,
        after: Option<&Key>,
    ) -> Result<Page<serde_json::Value>, ThreadError> {
        let ports = &self.ports;
        Ok(match part {
            ExportedPart::Thread => as_json(reading.thread(ports, after).await?),
            ExportedPart::Deliveries => as_json(reading.deliveries(ports, after).await?),
            ExportedPart::Tools => as_json(reading.tools(ports, after).await?),
            ExportedPart::Waiting => as_json(reading.waiting(ports, after).await?),
        })
    }

    async fn tenant_into(&self, writer: &mut Writer, tenant: &Tenant) -> Result<(), Stopped> {
        let id = &tenant.id;
        writer
            .line(json!({ "kind": "tenant", "at": self.ports.clock.now(), "configuration": tenant }))
            .await?;
        let mut after: Option<String> = None;
        loop {
            let documents = self.ports.knowledge.documents(id, after.as_deref(), DOCUMENTS).await?;
            let Some(last) = documents.last() else { break };
            after = Some(last.id.clone());
            for document in documents {
                writer.line(json!({ "kind": "document", "document": document })).await?;
            }
        }
        let mut after = None;
        loop {
            let page = erasure::page(&self.ports, id, after.as_ref()).await?;
            for erasure in page.items {
                writer.line(json!({ "kind": "erasure", "erasure": erasure })).await?;
            }
            after = page.after;
            if after.is_none() {
                break;
            }
        }
        let mut walk = Walk::of(id, Table::with(|table| is_by_row(table.export.of_tenant())), ROWS);
        loop {
            let page = self.ports.state.walk(&walk).await?;
            for row in &page.rows {
                self.row_into(writer, tenant, &row.key).await?;
            }
            if !walk.go_on(&page) {
                return Ok(());
            }
        }
    }

    async fn row_into(&self, writer: &mut Writer, tenant: &Tenant, key: &Key) -> Result<(), Stopped> {
        match key.table().descriptor().export.of_tenant() {
            Some(Section::Consents) => {
                let Ok(contact) = key.id().try_into().map(ContactId::from_bytes) else { return Ok(()) };
                let record = consent::load(&*self.ports.state, &tenant.id, contact).await?;
                if let Some(forward) = record.leads_to {
                    // Its statements are the other's.
                    let line = json!({ "kind": "merged", "contact": contact, "into": forward.contact });
                    return writer.line(line).await;
                }
                let consents = self.consents_of(&tenant.id, contact).await?;
                writer.line(json!({ "kind": "consents", "consents": consents })).await
            }
            Some(Section::Usage) => {
                let month = std::str::from_utf8(key.id()).ok().and_then(|month| month.parse().ok());
                let Some(month) = month else { return Ok(()) };
                let usage = usage::shown(&quota::usage(&self.ports, tenant, month).await?);
                writer.line(json!({ "kind": "usage", "usage": usage })).await
            }
            Some(Section::Audiences) => {
                let Some(id) = key.of_audience() else { return Ok(()) };
                let Some(head) = audience::find(&self.ports, &tenant.id, &id).await? else { return Ok(()) };
                writer.line(json!({ "kind": "audience", "audience": Audience::new(id, head, None) })).await
            }
            Some(Section::Members) => {
                let member = audience::member_of(&self.ports, &tenant.id, key).await?;
                let (Some(id), Some(member)) = (key.of_audience(), member) else { return Ok(()) };
                let line =
                    json!({ "kind": "member", "audience": id, "contact": key.about(), "member": member });
                writer.line(line).await
            }
            Some(Section::Conversation) => {
                let Some(conversation) = key.conversation() else { return Ok(()) };
                let Some(reading) = Reading::begin(&self.ports, &conversation).await? else { return Ok(()) };
                self.conversation_lines(writer, &reading).await
            }
            Some(Section::Part(_) | Section::Erasures | Section::AuditLog | Section::Documents) | None => {
                Ok(())
            }
        }
    }

    async fn conversation_lines(&self, writer: &mut Writer, reading: &Reading) -> Result<(), Stopped> {
        writer.line(json!({ "kind": "conversation", "conversation": reading.kept })).await?;
        let of = reading.kept.conversation.to_string();
        for part in parts() {
            let name = names(part).1;
            let mut after = None;
            loop {
                let page = self.part(reading, part, after.as_ref()).await?;
                for item in page.items {
                    writer.line(json!({ "kind": name, "conversation": of, name: item })).await?;
                }
                after = page.after;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Returns whether a section is written for each row of the scan over the tenant; the others are written before the
/// scan, or as a part of another section.
fn is_by_row(section: Option<Section>) -> bool {
    match section {
        Some(
            Section::Conversation
            | Section::Consents
            | Section::Usage
            | Section::Audiences
            | Section::Members,
        ) => true,
        Some(Section::Part(_) | Section::Erasures | Section::AuditLog | Section::Documents) | None => false,
    }
}

fn as_json<T: Serialize>(page: Page<T>) -> Page<serde_json::Value> {
    let json = |item| serde_json::to_value(item).expect("an exported item always serializes to JSON");
    Page { items: page.items.into_iter().map(json).collect(), after: page.after }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use heddle_schemas::ports::log::StoreError;

    use super::*;

    fn writer() -> (Writer, mpsc::Receiver<Result<Bytes, OperationError>>) {
        let (pieces, written) = mpsc::channel(PIECES);
        (Writer { pieces, buffer: Vec::new(), records: 0 }, written)
    }

    #[tokio::test]
    async fn who_reads_slowly_is_waited_for_and_gets_all_of_it() {
        const ITEMS: u64 = 100_000;
        let (mut writer, mut pieces) = writer();
        let written = Arc::new(AtomicU64::new(0));
        let counted = written.clone();
        let writing = tokio::spawn(async move {
            writer.put("[").await?;
            let mut first = true;
            for number in 0..ITEMS {
                writer.items(&mut first, &[json!({ "number": number, "text": "x".repeat(100) })]).await?;
                counted.store(number, Ordering::Relaxed);
            }
            writer.put("]").await?;
            writer.flush().await
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let ahead = written.load(Ordering::Relaxed);
        let most = (PIECES as u64 + 2) * PIECE as u64 / 100;
        assert!(ahead > 0 && ahead <= most, "{ahead} items of {ITEMS} were written without a reader");
        let mut all = Vec::new();
        while let Some(piece) = pieces.recv().await.transpose().unwrap() {
            all.extend_from_slice(&piece);
        }
        assert!(writing.await.unwrap().is_ok());
        let read: Vec<serde_json::Value> = serde_json::from_slice(&all).unwrap();
        assert_eq!((read.len() as u64, read[99_999]["number"].as_u64()), (ITEMS, Some(ITEMS - 1)));
    }

    #[tokio::test]
    async fn an_export_that_nobody_reads_any_more_ends() {
        let (mut writer, pieces) = writer();
        drop(pieces);
        let items = vec![json!("x".repeat(PIECE))];
        let written = writer.items(&mut true, &items).await;
        assert!(matches!(written, Err(Stopped::Unread)));
    }

    #[tokio::test]
    async fn what_broke_off_is_told_of_behind_what_was_read() {
        let (mut writer, mut pieces) = writer();
        writer.put("[").await.unwrap();
        writer.flush().await.unwrap();
        let away = StoreError::Unavailable { detail: "away".into() };
        writer.pieces.send(Err(away.into())).await.unwrap();
        assert_eq!(pieces.recv().await.transpose().unwrap().as_deref(), Some(&b"["[..]));
        assert!(pieces.recv().await.unwrap().is_err());
    }
}
