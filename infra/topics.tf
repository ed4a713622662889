# The topics of shared/messages.py. In Kafka they are made with the cluster; the bridge carries them over by their names.
locals {
  topics = toset([
    "webshop.buy-order.email",
    "webshop.export.history",
    "webshop.export.request",
    "webshop.product.import.trigger",
    "webshop.products.import",
    "webshop.products.import.result",
    "webshop.products.updated",
  ])
}

resource "google_pubsub_topic" "topic" {
  for_each = local.topics

  name = each.key
}

# What was given up on, by Pub/Sub after five tries or by a function at once.
resource "google_pubsub_topic" "dead_letters" {
  name = "dead-letters"
}
