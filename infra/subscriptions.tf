resource "google_pubsub_subscription" "function" {
  for_each = local.kafka_functions

  name                       = each.value.name
  topic                      = google_pubsub_topic.topic[each.value.topic].id
  ack_deadline_seconds       = each.value.timeout_seconds
  message_retention_duration = "604800s" # a week, the default: for an outage over a weekend

  push_config {
    # The framework reads from the path which topic a message is of.
    push_endpoint = "${local.urls[each.key]}/projects/${var.project_id}/topics/${each.value.topic}"

    oidc_token {
      service_account_email = google_service_account.invoker.email
      audience              = local.urls[each.key]
    }
  }

  retry_policy {
    minimum_backoff = "10s" # five tries then span more than two minutes: a database fails over in less
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 5
  }

  expiration_policy {
    ttl = "" # never, however long nobody imports anything
  }
}

# Keeps what was given up on for people to read and send again.
resource "google_pubsub_subscription" "dead_letters" {
  name                       = "dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = "2678400s" # 31 days, the longest there is

  expiration_policy {
    ttl = ""
  }
}

locals {
  urls = { for key, function in google_cloudfunctions2_function.function : key => function.service_config[0].uri }
}
