package heddle.bench;

import io.confluent.parallelconsumer.ParallelConsumerOptions;
import io.confluent.parallelconsumer.ParallelConsumerOptions.ProcessingOrder;
import io.confluent.parallelconsumer.ParallelStreamProcessor;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What Heddle's bench llm_turn does, by Confluent's Parallel Consumer: a topic of records, each with a key of its own
 * and in the order of keys, a call of a language model for each, a reply produced. The model is a sleep of the time it
 * takes, or is called over HTTP. Prints one JSON object.
 *
 * <p>Arguments: broker, records, concurrency, milliseconds of the model, and for HTTP the address of the API.
 */
public final class Peer {
    private static final String TEXT =
            "What are your opening hours on a public holiday that falls on a Monday? We would come by tram.";

    public static void main(String[] arguments) throws Exception {
        String broker = arguments[0];
        int records = Integer.parseInt(arguments[1]);
        int concurrency = Integer.parseInt(arguments[2]);
        long latency = Long.parseLong(arguments[3]);
        String base = arguments.length > 4 ? arguments[4] : null;

        long run = ProcessHandle.current().pid();
        String in = "peer." + run + ".in";
        String out = "peer." + run + ".out";
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", broker))) {
            admin.createTopics(List.of(new NewTopic(in, 8, (short) 1), new NewTopic(out, 8, (short) 1))).all().get();
        }
        // As Heddle's own producer: durable, once, and gathered for a millisecond.
        Map<String, Object> producing =
                Map.of("bootstrap.servers", broker, "acks", "all", "enable.idempotence", true, "linger.ms", 1);
        try (var producer = new KafkaProducer<>(producing, new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < records; number++) {
                producer.send(new ProducerRecord<>(in, "conversation-" + number, TEXT));
            }
        }

        var consumer = new KafkaConsumer<>(
                Map.<String, Object>of(
                        "bootstrap.servers", broker,
                        "group.id", "peer." + run,
                        "auto.offset.reset", "earliest",
                        "enable.auto.commit", false),
                new StringDeserializer(),
                new StringDeserializer());
        var producer = new KafkaProducer<>(producing, new StringSerializer(), new StringSerializer());
        var options = ParallelConsumerOptions.<String, String>builder()
                .ordering(ProcessingOrder.KEY)
                .maxConcurrency(concurrency)
                .consumer(consumer)
                .producer(producer)
                .build();
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var replied = new CountDownLatch(records);
        var underWay = new AtomicInteger();
        var mostAtOnce = new AtomicInteger();
        var processor = ParallelStreamProcessor.createEosStreamProcessor(options);
        processor.subscribe(List.of(in));
        long began = System.nanoTime();
        processor.pollAndProduce(
                record -> {
                    mostAtOnce.accumulateAndGet(underWay.incrementAndGet(), Math::max);
                    String reply = ask(client, base, latency, record.value());
                    underWay.decrementAndGet();
                    return new ProducerRecord<>(out, record.key(), reply);
                },
                produced -> replied.countDown());
        boolean all = replied.await(10, TimeUnit.MINUTES);
        double seconds = (System.nanoTime() - began) / 1e9;
        processor.close(Duration.ofSeconds(30), io.confluent.parallelconsumer.internal.DrainingCloseable.DrainingMode.DONT_DRAIN);
        if (!all) {
            throw new IllegalStateException(replied.getCount() + " records have no reply after ten minutes");
        }
        System.out.printf(
                "{ \"bench\": \"parallel_consumer\", \"model\": \"%s\", \"records\": %d, \"concurrency\": %d, "
                        + "\"latency_ms\": %d, \"seconds\": %.3f, \"records_per_second\": %.0f, \"most_at_once\": %d }%n",
                base == null ? "sleeps" : "called over HTTP",
                records,
                concurrency,
                latency,
                seconds,
                records / seconds,
                mostAtOnce.get());
    }

    private static String ask(HttpClient client, String base, long latency, String text) {
        try {
            if (base == null) {
                Thread.sleep(latency);
                return text;
            }
            String body = "{\"model\":\"m\",\"max_tokens\":500,\"messages\":[{\"role\":\"system\",\"content\":"
                    + "\"You answer customers of Bench in a messenger.\"},{\"role\":\"user\",\"content\":\"" + text + "\"}]}";
            HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/chat/completions"))
                    .header("authorization", "Bearer sk")
                    .header("content-type", "application/json")
                    .POST(HttpRequest.BodyPublishers.ofString(body))
                    .build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200) {
                throw new IllegalStateException("the provider answered " + answer.statusCode());
            }
            return answer.body();
        } catch (java.io.IOException | InterruptedException failed) {
            throw new IllegalStateException(failed);
        }
    }

    private Peer() {}
}
