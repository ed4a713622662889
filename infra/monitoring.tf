# One entry an alert: a metric of a kind of resource, narrowed down, that is above a threshold.
locals {
  function_names     = join(", ", [for entry in values(local.services) : "\"${entry.name}\""])
  subscription_names = join(", ", [for entry in values(local.kafka_functions) : "\"${entry.name}\""])

  alerts = {
    dead_letters = {
      title            = "Something was given up on"
      resource         = "pubsub_subscription"
      metric           = "pubsub.googleapis.com/subscription/num_undelivered_messages"
      where            = "resource.labels.subscription_id = \"${google_pubsub_subscription.dead_letters.name}\""
      group_by         = "resource.labels.subscription_id"
      aligner          = "ALIGN_MAX"
      reducer          = "REDUCE_MAX"
      threshold        = 0
      period_seconds   = 60
      duration_seconds = 0
      what_to_do       = "Pull the subscription dead-letters: the attributes topic and reason say what it is and why. When the cause is mended, publish the message to its topic again; every function takes a message as often as it comes."
    }
    messages_waiting = {
      title            = "Messages wait for more than ten minutes"
      resource         = "pubsub_subscription"
      metric           = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
      where            = "resource.labels.subscription_id = one_of(${local.subscription_names})"
      group_by         = "resource.labels.subscription_id"
      aligner          = "ALIGN_MAX"
      reducer          = "REDUCE_MAX"
      threshold        = 600
      period_seconds   = 60
      duration_seconds = 120
      what_to_do       = "The function of the same name does not take its messages. Its log says why; so does the database that it writes to."
    }
    active_too_long = {
      title            = "An import or export is active for too long"
      resource         = "cloud_run_revision"
      metric           = "logging.googleapis.com/user/${google_logging_metric.active_too_long.name}"
      where            = "resource.labels.service_name = one_of(${local.function_names})"
      group_by         = "resource.labels.service_name"
      aligner          = "ALIGN_DELTA"
      reducer          = "REDUCE_SUM"
      threshold        = 0
      period_seconds   = 300
      duration_seconds = 0
      what_to_do       = "The log of the function in the alert names it. A bridge that does not run, or brokers out of reach, stop all of them: look at the worker pool kafka-bridge first."
    }
    server_errors = {
      title            = "A function answers 5xx"
      resource         = "cloud_run_revision"
      metric           = "run.googleapis.com/request_count"
      where            = "metric.labels.response_code_class = \"5xx\" AND resource.labels.service_name = one_of(${local.function_names})"
      group_by         = "resource.labels.service_name"
      aligner          = "ALIGN_DELTA"
      reducer          = "REDUCE_SUM"
      threshold        = 4 # in five minutes: a sweep that always fails makes five
      period_seconds   = 300
      duration_seconds = 0
      what_to_do       = "Events are delivered again, so nothing is lost yet; a user of the API got a reference that stands in the log."
    }
  }
}

resource "google_monitoring_alert_policy" "alert" {
  for_each = local.alerts

  display_name          = each.value.title
  combiner              = "OR"
  notification_channels = var.notification_channels

  conditions {
    display_name = each.value.title

    condition_threshold {
      filter = join(" AND ", [
        "resource.type = \"${each.value.resource}\"",
        "metric.type = \"${each.value.metric}\"",
        each.value.where,
      ])
      comparison      = "COMPARISON_GT"
      threshold_value = each.value.threshold
      duration        = "${each.value.duration_seconds}s"

      aggregations {
        alignment_period     = "${each.value.period_seconds}s"
        per_series_aligner   = each.value.aligner
        cross_series_reducer = each.value.reducer
        group_by_fields      = [each.value.group_by]
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = each.value.what_to_do
  }
}

# Sweep logs an import that several workers claimed without progress. A function logs a job of its own, like a render,
# that stalls.
resource "google_logging_metric" "active_too_long" {
  name = "imports-and-exports-active-too-long"
  filter = join(" AND ", [
    "resource.type = \"cloud_run_revision\"",
    "(jsonPayload.message : \"has made no progress in\" OR jsonPayload.message : \"No progress for\")",
  ])

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "INT64"
  }
}
