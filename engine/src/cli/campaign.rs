//! `heddle campaign check`: reports every fault of campaigns' files, and when their messages would be due.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use heddle_connectors::clock::SystemClock;
use heddle_schemas::campaign::Campaign;
use heddle_schemas::campaign::schedule::Due;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::time::Timestamp;
use heddle_schemas::zone::Zone;
use serde::Serialize;

use super::Failure;
use super::output::Output;

/// Arguments of `heddle campaign`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check campaigns' files and show when a message would be due now. Needs no node.
    Check {
        /// Campaigns' files, in TOML.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Time zone of the tenant, by its IANA name.
        #[arg(long, value_name = "ZONE", default_value = "UTC")]
        zone: Zone,
        /// Time zones of recipients to show the due time for.
        #[arg(long, value_name = "ZONE")]
        recipient_zone: Vec<Zone>,
    },
}

/// Result for one file.
#[derive(Debug, Serialize)]
struct Checked {
    file: String,
    /// The campaign; none where the file has faults.
    campaign: Option<Campaign>,
    faults: Vec<String>,
    due: Vec<DueIn>,
}

/// Moment at which a recipient of a zone is due.
#[derive(Debug, Serialize)]
struct DueIn {
    zone: String,
    /// Time on the clock of that zone; none where the latest start is over.
    local: Option<String>,
}

impl Checked {
    fn of(path: &Path, tenant: &Zone, recipients: &[Zone], now: Timestamp) -> Self {
        let file = path.display().to_string();
        let read = std::fs::read_to_string(path).map_err(|error| vec![format!("it cannot be read: {error}")]);
        match read.and_then(|text| Campaign::from_toml(&text).map_err(|faults| faults.0)) {
            Err(faults) => Self { file, campaign: None, faults, due: Vec::new() },
            Ok(campaign) => {
                let due = std::iter::once(tenant).chain(recipients).map(|zone| DueIn {
                    zone: zone.name().to_owned(),
                    local: match campaign.schedule.due(tenant, Some(zone), now) {
                        Due::At(at) => Some(zone.text(at)),
                        Due::Late => None,
                    },
                });
                Self { file, due: due.collect(), campaign: Some(campaign), faults: Vec::new() }
            }
        }
    }

    fn text(&self) -> String {
        let Some(campaign) = &self.campaign else {
            return format!("{}:\n  {}", self.file, self.faults.join("\n").replace('\n', "\n  "));
        };
        let due = self.due.iter().map(|due| match &due.local {
            Some(local) => format!("\n  {}: due {local}", due.zone),
            None => format!("\n  {}: the latest start is over, the campaign would not send", due.zone),
        });
        format!(
            "{}: good, {} sends {} ({}) to {}{}",
            self.file,
            campaign.id,
            campaign.template.name,
            campaign.template.language,
            campaign.audience,
            due.collect::<String>()
        )
    }
}

/// Runs the command.
///
/// # Errors
/// When a file has a fault; all of them have been printed.
pub fn run(arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let Action::Check { files, zone, recipient_zone } = &arguments.action;
    let now = SystemClock.now();
    let checked: Vec<_> = files.iter().map(|file| Checked::of(file, zone, recipient_zone, now)).collect();
    output.result(&checked, || checked.iter().map(Checked::text).collect::<Vec<_>>().join("\n"));
    let wrong = checked.iter().filter(|one| one.campaign.is_none()).count();
    match wrong {
        0 => Ok(()),
        _ => Err(Failure::Usage(anyhow::anyhow!("{wrong} of {} cannot be used", checked.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/campaign.toml");

    #[test]
    fn the_example_is_due_in_each_recipients_zone() {
        let zone = |name: &str| name.parse::<Zone>().unwrap();
        let now = zone("UTC").parse("2027-02-01 12:00").unwrap();
        let checked =
            Checked::of(Path::new(EXAMPLE), &zone("Europe/Berlin"), &[zone("America/Sao_Paulo")], now);
        let text = checked.text();
        assert!(text.contains("good, spring sends spring_offer (de) to newsletter"), "{text}");
        assert!(text.contains("Europe/Berlin: due Monday 2027-03-01 10:00"), "{text}");
        assert!(text.contains("America/Sao_Paulo: due Monday 2027-03-01 10:00"), "{text}");
        let late = zone("UTC").parse("2027-03-02 12:00").unwrap();
        let text = Checked::of(Path::new(EXAMPLE), &zone("Europe/Berlin"), &[], late).text();
        assert!(text.contains("the latest start is over"), "{text}");
    }

    #[test]
    fn a_file_that_is_missing_or_wrong_has_its_faults_and_no_campaign() {
        let now = SystemClock.now();
        let missing = Checked::of(Path::new("/nowhere/spring.toml"), &Zone::UTC, &[], now);
        assert!(missing.campaign.is_none() && missing.faults[0].contains("cannot be read"), "{missing:?}");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wrong.toml");
        std::fs::write(
            &file,
            std::fs::read_to_string(EXAMPLE).unwrap().replace("\"spring\"", "\"Spring 1\""),
        )
        .unwrap();
        let wrong = Checked::of(&file, &Zone::UTC, &[], now);
        assert!(wrong.text().contains("id: \"Spring 1\" takes"), "{}", wrong.text());
    }
}
