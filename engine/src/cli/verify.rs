//! `heddle verify`: verifies the promises made to tenants, by the stored data.

use anyhow::anyhow;
use clap::Args;
use heddle_api::Nothing;
use heddle_api::audit_log::{OfChain, Prove};
use heddle_api::operation::NoParameters;
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use heddle_schemas::promise::{Proof, Proofs};

use super::Failure;
use super::admin::{Admin, Where};
use super::audit::tenants;
use super::output::{Output, table};

/// Arguments of `heddle verify`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub(super) place: Where,
    /// Tenant whose promises to verify; without one, every tenant and the data of no tenant. Reads everything that
    /// is stored; the exit code is 1 where a promise is broken.
    pub(super) tenant: Option<TenantId>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure`].
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let admin = Admin::find(config, &arguments.place).await?;
    let done = verify(&admin, arguments.tenant, output).await;
    admin.close().await;
    done
}

async fn verify(admin: &Admin, tenant: Option<TenantId>, output: &mut Output) -> Result<(), Failure> {
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
