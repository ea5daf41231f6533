//! `heddle audit`: verifies the promises made to tenants, and lists and verifies the audit log.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use heddle_api::audit_log::{
    Chain, Entries, ListAuditLog, NotedEntries, OfChain, Prove, ResumeAuditLog, VerifyAuditLog,
};
use heddle_api::operation::NoParameters;
use heddle_api::tenants::ListTenants;
use heddle_api::{List, Nothing};
use heddle_schemas::audit::chain::{Noted, Verdict};
use heddle_schemas::audit::{Entry, Means, Who};
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use heddle_schemas::promise::{Proof, Proofs};

use super::Failure;
use super::admin::{Admin, Where};
use super::output::{Output, table};

/// Arguments of `heddle audit`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    /// Tenant whose promises to verify; without one, every tenant and the data of no tenant. Reads everything that
    /// is stored; the exit code is 1 where a promise is broken.
    tenant: Option<TenantId>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List who did what, when and why, or verify that the list was neither changed nor truncated.
    Log(Asked),
}

#[derive(Debug, Args)]
struct Asked {
    /// The tenant's id; without one, the log of the installation, and with --verify every log.
    tenant: Option<TenantId>,
    /// Number of the first entry to list.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["verify", "resume"])]
    from: u64,
    /// Verify the log from its first entry to its newest, and report where it is broken; the exit code is then 1.
    #[arg(long, conflicts_with = "resume")]
    verify: bool,
    /// With --verify: an entry that an earlier --verify printed, or that topic events published. It must still
    /// exist, which also detects a log that was reset by a restore of the whole store to an earlier state.
    #[arg(long, value_name = "N:HASH", requires = "verify", value_parser = str::parse::<Noted>)]
    noted: Vec<Noted>,
    /// Resume a log whose head was lost or forged; until then, operations that need an entry in it are refused.
    /// One number is skipped, so that --verify reports the break for ever.
    #[arg(long)]
    resume: bool,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let asked = match (arguments.action, arguments.tenant) {
        (Some(Action::Log(asked)), None) => asked,
        (Some(_), Some(tenant)) => {
            let named = anyhow!("the tenant comes after `log`: heddle audit log {tenant}");
            return Err(Failure::Usage(named));
        }
        (None, tenant) => {
            let admin = Admin::find(config, &arguments.place).await?;
            let done = prove(&admin, tenant, output).await;
            admin.close().await;
            return done;
        }
    };
    let admin = Admin::find(config, &arguments.place).await?;
    let done = match (asked.verify, asked.resume) {
        (true, _) => verify(&admin, &asked, output).await,
        (_, true) => {
            let chain = OfChain { tenant: asked.tenant.clone() };
            admin.call(ResumeAuditLog, NoParameters {}, chain, Nothing).await.map(|entry| {
                output.result(&entry, || format!("the audit log resumes with entry {}", entry.body.number));
            })
        }
        _ => list(&admin, &asked, output).await,
    };
    admin.close().await;
    done
}

/// Returns the ids of all tenants.
async fn tenants(admin: &Admin) -> Result<impl Iterator<Item = TenantId> + use<>, Failure> {
    let List { items } = admin.call(ListTenants, NoParameters {}, NoParameters {}, Nothing).await?;
    Ok(items.into_iter().map(|tenant| tenant.id))
}

async fn prove(admin: &Admin, tenant: Option<TenantId>, output: &mut Output) -> Result<(), Failure> {
    let whose = match tenant {
        Some(tenant) => vec![Some(tenant)],
        None => tenants(admin).await?.map(Some).chain([None]).collect(),
    };
    let mut all = Vec::with_capacity(whose.len());
    for tenant in whose {
        all.push(admin.call(Prove, NoParameters {}, OfChain { tenant }, Nothing).await?);
    }
    output.result(&all, || all.iter().map(proofs).collect::<Vec<_>>().join("\n\n"));
    let broken: usize =
        all.iter().map(|proofs| proofs.proofs.iter().filter(|proof| !proof.kept).count()).sum();
    match broken {
        0 => Ok(()),
        1 => Err(Failure::Failed(anyhow!("a promise is broken"))),
        _ => Err(Failure::Failed(anyhow!("{broken} promises are broken"))),
    }
}

fn proofs(of: &Proofs) -> String {
    let whose = of.tenant.as_ref().map_or_else(|| "no tenant".into(), |tenant| format!("tenant {tenant}"));
    let rows: Vec<_> = of.proofs.iter().map(proof).collect();
    let mut text = format!("{whose}, {}\n{}", of.at, table(["PROMISE", "VERDICT", "EVIDENCE"], &rows));
    for proof in of.proofs.iter().filter(|proof| !proof.kept) {
        text += &format!("\n\n{} is broken: {}", proof.promise, proof.promise.says());
        for fault in &proof.faults {
            text += &format!("\n  {fault}");
        }
        if proof.more_faults > 0 {
            text += &format!("\n  and {} further faults", proof.more_faults);
        }
    }
    text
}

fn proof(proof: &Proof) -> [String; 3] {
    [proof.promise.as_str().to_owned(), proof.verdict().to_owned(), proof.evidence.clone()]
}

async fn list(admin: &Admin, asked: &Asked, output: &mut Output) -> Result<(), Failure> {
    let mut entries = Vec::new();
    let mut from = asked.from;
    loop {
        let which = Entries { tenant: asked.tenant.clone(), from: Some(from), limit: None };
        let List { items: page } = admin.call(ListAuditLog, NoParameters {}, which, Nothing).await?;
        // A page can lack rows that are not entries, so the list ends only with an empty page.
        let Some(last) = page.last() else { break };
        from = last.body.number.saturating_add(1);
        entries.extend(page);
    }
    output.result(&entries, || {
        let rows: Vec<_> = entries.iter().map(row).collect();
        table(["N", "AT", "WHO", "OPERATION", "ABOUT", "OUTCOME", "WHY"], &rows)
    });
    Ok(())
}

fn row(Entry { body, .. }: &Entry) -> [String; 7] {
    let act = &body.act;
    let outcome = match act.began {
        Some(began) => format!("{} (of {began})", act.outcome.as_str()),
        None => act.outcome.as_str().to_owned(),
    };
    [
        body.number.to_string(),
        body.at.to_string(),
        who(&act.who),
        act.what.as_str().to_owned(),
        act.what.about(),
        outcome,
        act.why.as_ref().map(ToString::to_string).unwrap_or_default(),
    ]
}

fn who(Who { name, means, address }: &Who) -> String {
    let means = match means {
        Means::Token => "token",
        Means::Machine => "this machine",
        Means::Folder => "data folder",
        Means::Engine => "engine",
    };
    let name = name.as_ref().map_or("-", |name| name.as_str());
    match address {
        Some(address) => format!("{name} ({means}, {address})"),
        None => format!("{name} ({means})"),
    }
}

async fn verify(admin: &Admin, asked: &Asked, output: &mut Output) -> Result<(), Failure> {
    let mut chains = vec![asked.tenant.clone()];
    // Noted entries belong to one log.
    if asked.tenant.is_none() && asked.noted.is_empty() {
        chains.extend(tenants(admin).await?.map(Some));
    }
    let mut verdicts = Vec::with_capacity(chains.len());
    for tenant in chains {
        let noted = (!asked.noted.is_empty()).then(|| NotedEntries(asked.noted.clone()));
        let chain = Chain { tenant, noted };
        verdicts.push(admin.call(VerifyAuditLog, NoParameters {}, chain, Nothing).await?);
    }
    output.result(&verdicts, || verdicts.iter().map(summary).collect::<Vec<_>>().join("\n"));
    let broken = verdicts.iter().filter(|verdict| !verdict.holds()).count();
    match broken {
        0 => Ok(()),
        _ => Err(Failure::Failed(anyhow!(
            "{broken} of {} audit logs are not as they were written",
            verdicts.len()
        ))),
    }
}

fn summary(verdict: &Verdict) -> String {
    let whose =
        verdict.tenant.as_ref().map_or_else(|| "no tenant".into(), |tenant| format!("tenant {tenant}"));
    let newest = verdict.newest.map_or_else(String::new, |newest| format!(", the newest is {newest}"));
    let keyed = if verdict.keyed { "" } else { "; its key is erased, so that MACs were not checked" };
    let state = if verdict.holds() { "holds" } else { "IS BROKEN" };
    let mut text = format!("{whose}: the log {state}, {} entries{newest}{keyed}", verdict.entries);
    for fault in &verdict.faults {
        text += &format!("\n  {fault}");
    }
    if verdict.more_faults > 0 {
        text += &format!("\n  and {} further faults", verdict.more_faults);
    }
    text
}
