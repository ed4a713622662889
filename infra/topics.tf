# The topics of the kafka functions. In Kafka they are created with the cluster. kafka_bridge publishes each record to the
# Pub/Sub topic of the same name.
locals {
  topics = toset([for entry in values(local.kafka_functions) : entry.topic])
}

resource "google_pubsub_topic" "topic" {
  for_each = local.topics

  name = each.key
}

# Messages that no retry can help: Pub/Sub sends them here after five attempts, a function sends them immediately.
resource "google_pubsub_topic" "dead_letters" {
  name = "dead-letters"
}
