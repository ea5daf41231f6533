//! Topics of tests, deleted when the test ends.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::services::Services;

/// Deletes the topics whose names begin with `prefix`: each of their partitions would be one more to recover
/// when a broker is killed. For callers that cannot await.
pub fn delete(prefix: String) {
    let deleting = std::thread::spawn(move || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &Services::get().kafka);
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(None, std::time::Duration::from_secs(10)).unwrap();
        let names =
            metadata.topics().iter().map(|topic| topic.name()).filter(|name| name.starts_with(&prefix));
        let names: Vec<_> = names.collect();
        let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(admin.delete_topics(&names, &AdminOptions::new())).unwrap();
    });
    // Leftovers do not disturb other tests.
    drop(deleting.join());
}
