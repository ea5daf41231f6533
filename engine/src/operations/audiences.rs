//! Handlers of the operations on audiences: list, show, export, delete. The import is in [`super::audience_import`].

use std::sync::Arc;

use heddle_actors::audience::{self, AudienceError, Position};
use heddle_api::audiences::{
    Audience, DeleteAudience, Deleted, ExportAudience, ListAudiences, OfAudience, ShowAudience,
};
use heddle_api::content::{Csv, List};
use heddle_api::{Input, Operation};
use heddle_import::reject::write_row;
use heddle_schemas::audience::AudienceHead;
use heddle_schemas::audit::{Act, Outcome, What};
use heddle_schemas::id::TenantId;
use heddle_schemas::tenant::Tenant;

use super::export::{Stopped, Writer};
use super::{Call, Caller, Handler, OperationError, Operations, Subject};

impl Handler for ListAudiences {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<List<Audience>, OperationError> {
        let found = audience::list(&operations.ports, &tenant.id).await?;
        Ok(List { items: found.into_iter().map(|(id, head)| Audience::new(id, head, None)).collect() })
    }
}

/// Audience that exists.
pub struct Existing(AudienceHead);

impl<O: Operation<Path = OfAudience>> Subject<O> for Existing {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        let OfAudience { tenant, audience } = &input.path;
        operations.tenant(tenant)?;
        let found = audience::find(&operations.ports, tenant, audience).await?;
        Ok(Self(found.ok_or_else(|| AudienceError::Unknown(audience.clone()))?))
    }
}

impl Handler for ShowAudience {
    type Subject = Existing;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        Input { path: OfAudience { tenant, audience: id }, .. }: Input<Self>,
        Existing(head): Existing,
    ) -> Result<Audience, OperationError> {
        let members = audience::count(&operations.ports, &tenant, &id).await?;
        Ok(Audience::new(id, head, Some(members)))
    }
}

impl Handler for DeleteAudience {
    type Subject = Existing;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        Input { path: OfAudience { tenant, audience: id }, .. }: Input<Self>,
        _: Existing,
    ) -> Result<Deleted, OperationError> {
        Ok(Deleted { members: audience::delete(&operations.ports, &tenant, &id).await? })
    }
}

impl Handler for ExportAudience {
    type Subject = Existing;

    async fn run(
        operations: &Operations,
        call: Call<'_>,
        Input { path, .. }: Input<Self>,
        Existing(head): Existing,
    ) -> Result<Csv, OperationError> {
        let (writer, pieces) = Writer::channel();
        let columns = head.columns.into_iter().collect();
        tokio::spawn(operations.clone().export_audience(
            call.caller.clone(),
            call.began,
            path,
            columns,
            writer,
        ));
        Ok(Csv(pieces))
    }
}

/// The column of the phone number, the first of an export.
const PHONE: &str = "phone";

impl Operations {
    async fn export_audience(
        self,
        caller: Caller,
        began: Option<u64>,
        of: OfAudience,
        columns: Vec<String>,
        mut writer: Writer,
    ) {
        let written = match self.members_into(&of, &columns, &mut writer).await {
            Ok(()) => writer.flush().await,
            failed => failed,
        };
        self.exported(&of.tenant, None, writer.records);
        let outcome = if written.is_ok() { Outcome::Done } else { Outcome::Failed };
        let what = What::AudienceExport { audience: of.audience };
        self.record_end(caller, &of.tenant, what, (outcome, began), writer.records).await;
        if let Err(Stopped::Failed(error)) = written {
            tracing::warn!(%error, tenant = %of.tenant, "the export of an audience was interrupted");
            writer.fail(error).await;
        }
    }

    async fn members_into(
        &self,
        of: &OfAudience,
        columns: &[String],
        writer: &mut Writer,
    ) -> Result<(), Stopped> {
        let header = [PHONE].into_iter().chain(columns.iter().map(String::as_str));
        writer.put(&row(header)).await?;
        let mut at = Some(Position::START);
        while let Some(position) = at {
            let (page, next) = audience::members(&self.ports, &of.tenant, &of.audience, &position).await?;
            for (_, member) in &page {
                let value = |column: &String| member.values.get(column).map_or("", String::as_str);
                writer
                    .put(&row([member.phone.as_str()].into_iter().chain(columns.iter().map(value))))
                    .await?;
                writer.records += 1;
            }
            at = next;
        }
        Ok(())
    }

    /// Writes the outcome of an operation whose work went on after its answer.
    pub(super) async fn record_end(
        &self,
        Caller { who, why, .. }: Caller,
        tenant: &TenantId,
        what: What,
        (outcome, began): (Outcome, Option<u64>),
        records: u64,
    ) {
        let act = Act { who, what, why, outcome, began, records: Some(records) };
        if let Err(error) = self.audit.append(Some(tenant), act).await {
            // The audit log already holds the begin.
            tracing::error!(%error, began, %tenant, "audit write failed: the end of an operation is missing");
        }
    }
}

fn row<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = Vec::new();
    write_row(&mut line, cells).expect("memory takes every row");
    String::from_utf8(line).expect("the cells are text")
}
