resource "google_pubsub_subscription" "function" {
  for_each = local.kafka_functions

  name                       = each.value.name
  topic                      = google_pubsub_topic.topic[each.value.topic].id
  ack_deadline_seconds       = each.value.timeout_seconds
  message_retention_duration = "604800s" # a week, the default: for an outage over a weekend

  push_config {
    # The framework reads a message's topic from this path.
    push_endpoint = "${local.urls[each.key]}/projects/${var.project_id}/topics/${each.value.topic}"

    oidc_token {
      service_account_email = google_service_account.invoker.email
      audience              = local.urls[each.key]
    }
  }

  retry_policy {
    minimum_backoff = "10s" # five attempts then span more than two minutes: a database fails over in less
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 5
  }

  expiration_policy {
    ttl = "" # never, even if there are no imports for a long time
  }
}

# Keeps dead letters so that people can read them and publish them again.
resource "google_pubsub_subscription" "dead_letters" {
  name                       = "dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  message_retention_duration = "2678400s" # 31 days, the longest possible time

  expiration_policy {
    ttl = ""
  }
}

locals {
  urls = { for key, function in google_cloudfunctions2_function.function : key => function.service_config[0].uri }
}
