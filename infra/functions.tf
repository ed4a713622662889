locals {
  functions = yamldecode(file("${path.module}/functions.yaml"))

  # The values of the keys that an entry omits.
  defaults = {
    topic           = null
    paths           = []
    timeout_seconds = null
    databases       = []
    bucket          = []
    kafka           = false
    secrets         = []
    signs_urls      = false
  }

  # Complete entries, with a name for their resources: Cloud Run allows no underscore in a name.
  deployed = {
    for key, entry in local.functions : key => merge(local.defaults, entry, { name = replace(key, "_", "-") })
  }

  services           = { for key, entry in local.deployed : key => entry if entry.kind != "worker" }
  http_functions     = { for key, entry in local.deployed : key => entry if entry.kind == "http" }
  kafka_functions    = { for key, entry in local.deployed : key => entry if entry.kind == "kafka" }
  schedule_functions = { for key, entry in local.deployed : key => entry if entry.kind == "schedule" }
  workers            = { for key, entry in local.deployed : key => entry if entry.kind == "worker" }
  private_functions  = { for key, entry in local.services : key => entry if entry.kind != "http" }
}

resource "google_cloudfunctions2_function" "function" {
  for_each = local.services

  name     = each.value.name
  location = var.region

  build_config {
    runtime         = "python313" # the newest version that the tests run on
    entry_point     = each.key
    service_account = google_service_account.builder.id

    source {
      storage_source {
        bucket = google_storage_bucket.source.name
        object = google_storage_bucket_object.source.name
      }
    }
  }

  service_config {
    service_account_email            = google_service_account.function[each.key].email
    available_cpu                    = "1" # an instance with less than one CPU serves only one request at a time
    available_memory                 = "${each.value.memory_mb}Mi"
    timeout_seconds                  = each.value.timeout_seconds
    max_instance_count               = each.value.max_instances
    max_instance_request_concurrency = each.value.threads
    ingress_settings                 = each.value.kind == "http" ? "ALLOW_INTERNAL_AND_GCLB" : "ALLOW_INTERNAL_ONLY"
    environment_variables            = local.settings[each.key]
    direct_vpc_egress                = each.value.kafka ? "VPC_EGRESS_PRIVATE_RANGES_ONLY" : null

    dynamic "direct_vpc_network_interface" {
      for_each = each.value.kafka ? [var.subnetwork] : []
      content {
        network    = var.network
        subnetwork = direct_vpc_network_interface.value
      }
    }

    dynamic "secret_environment_variables" {
      for_each = local.secrets_read[each.key]
      content {
        key        = secret_environment_variables.value
        project_id = var.project_id
        secret     = google_secret_manager_secret.secret[secret_environment_variables.value].secret_id
        version    = "latest"
      }
    }
  }

  dynamic "event_trigger" {
    for_each = each.value.kind == "storage" ? [google_storage_bucket.files.name] : []
    content {
      event_type            = "google.cloud.storage.object.v1.finalized"
      trigger_region        = var.region
      retry_policy          = "RETRY_POLICY_RETRY"
      service_account_email = google_service_account.invoker.email

      event_filters {
        attribute = "bucket"
        value     = event_trigger.value
      }
    }
  }

  depends_on = [
    google_project_iam_member.builder,
    google_project_iam_member.eventarc_receiver,
    google_project_iam_member.storage_events,
    google_secret_manager_secret_iam_member.function,
  ]
}
