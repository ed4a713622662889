# One entry per alert: a metric of a resource type, with a filter, that exceeds a threshold.
locals {
  function_names     = join(", ", [for entry in values(local.services) : "\"${entry.name}\""])
  subscription_names = join(", ", [for entry in values(local.kafka_functions) : "\"${entry.name}\""])

  alerts = {
    dead_letters = {
      title            = "A message is a dead letter"
      resource         = "pubsub_subscription"
      metric           = "pubsub.googleapis.com/subscription/num_undelivered_messages"
      where            = "resource.labels.subscription_id = \"${google_pubsub_subscription.dead_letters.name}\""
      group_by         = "resource.labels.subscription_id"
      aligner          = "ALIGN_MAX"
      reducer          = "REDUCE_MAX"
      threshold        = 0
      period_seconds   = 60
      duration_seconds = 0
      what_to_do       = "Pull the subscription dead-letters: the attributes topic and reason show where the message comes from and why it failed. When the cause is corrected, publish the message to its topic again; every function can receive a message more than once."
    }
    messages_waiting = {
      title            = "Messages have waited for more than ten minutes"
      resource         = "pubsub_subscription"
      metric           = "pubsub.googleapis.com/subscription/oldest_unacked_message_age"
      where            = "resource.labels.subscription_id = one_of(${local.subscription_names})"
      group_by         = "resource.labels.subscription_id"
      aligner          = "ALIGN_MAX"
      reducer          = "REDUCE_MAX"
      threshold        = 600
      period_seconds   = 60
      duration_seconds = 120
      what_to_do       = "The function of the same name does not process its messages. Read its log, and the log of the database that it writes to."
    }
    active_too_long = {
      title            = "An import or export has been active for too long"
      resource         = "cloud_run_revision"
      metric           = "logging.googleapis.com/user/${google_logging_metric.active_too_long.name}"
      where            = "resource.labels.service_name = one_of(${local.function_names})"
      group_by         = "resource.labels.service_name"
      aligner          = "ALIGN_DELTA"
      reducer          = "REDUCE_SUM"
      threshold        = 0
      period_seconds   = 300
      duration_seconds = 0
      what_to_do       = "The log of the function in the alert names the import or export. If kafka-bridge is not running or cannot reach the brokers, all of them stop: check the worker pool kafka-bridge first."
    }
    server_errors = {
      title            = "A function responds with 5xx"
      resource         = "cloud_run_revision"
      metric           = "run.googleapis.com/request_count"
      where            = "metric.labels.response_code_class = \"5xx\" AND resource.labels.service_name = one_of(${local.function_names})"
      group_by         = "resource.labels.service_name"
      aligner          = "ALIGN_DELTA"
      reducer          = "REDUCE_SUM"
      threshold        = 4 # in five minutes: a sweep that always fails causes five
      period_seconds   = 300
      duration_seconds = 0
      what_to_do       = "Events are delivered again, so nothing is lost yet. A user of the API got a reference that is also in the log."
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

# Sweep logs an import that several workers claimed without progress. Other functions log their own stalled jobs, such as
# the rendering of an export.
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
