# One entry a function; everything else about a function follows from it. Its key is the name of the module in
# functions/ and of the entry point in main.py.
#
# kind             what calls it, as the function itself says: http, kafka, storage, schedule or worker
# topic            of a kafka function: the topic of its messages
# paths            of an http function: templates of its routes; * is one segment, ** any number of them at the end
# memory_mb        of one instance
# timeout_seconds  that one request may take; of a kafka function at most 600, the longest that Pub/Sub waits
# threads          requests that one instance serves at once; sizes its connection pools too
# max_instances    what the databases can bear: each instance holds up to threads + 2 connections a database
# databases        that it may log in to: service, product, legacy
# bucket           what it may do with objects: read, create, or write (both, and replace and remove)
# kafka            whether it talks to Kafka
# secrets          it reads, by the setting that they are
# signs_urls       whether it hands out signed URLs
locals {
  functions = {
    buy_order_email = {
      kind            = "kafka"
      topic           = "webshop.buy-order.email"
      memory_mb       = 1024 # a mail of 20 MB is in memory several times while it is handed over
      timeout_seconds = 300
      threads         = 2
      max_instances   = 5
      databases       = ["service", "product"]
      bucket          = ["create"]
      secrets         = ["SENDGRID_API_KEY"]
    }
    buy_orders_api = {
      kind            = "http"
      paths           = ["/webshops/*/buy-order-export-settings", "/webshops/*/buy-orders/**"]
      memory_mb       = 512
      timeout_seconds = 60
      threads         = 8
      max_instances   = 10
      databases       = ["service", "product"]
      kafka           = true
    }
    email_events = {
      kind            = "http"
      paths           = ["/email-events"]
      memory_mb       = 512
      timeout_seconds = 60
      threads         = 4
      max_instances   = 5
      databases       = ["service", "product"] # the latter for access, as every http function
      secrets         = ["SENDGRID_WEBHOOK_PUBLIC_KEY"]
    }
    export_download = {
      kind            = "http"
      paths           = ["/webshops/*/exports/*/download"]
      memory_mb       = 512
      timeout_seconds = 60
      threads         = 8
      max_instances   = 10
      databases       = ["service", "product"]
      bucket          = ["read"]
      signs_urls      = true
    }
    export_history = {
      kind            = "kafka"
      topic           = "webshop.export.history"
      memory_mb       = 512
      timeout_seconds = 60
      threads         = 4
      max_instances   = 5
      databases       = ["service"]
    }
    export_render = {
      kind            = "kafka"
      topic           = "webshop.export.request"
      memory_mb       = 1024
      timeout_seconds = 600
      threads         = 4
      max_instances   = 10
      databases       = ["service", "product"]
      bucket          = ["write"]
      kafka           = true
    }
    exports_api = {
      kind            = "http"
      paths           = ["/webshops/*/export-sources", "/webshops/*/exports", "/webshops/*/exports/**"]
      memory_mb       = 1024
      timeout_seconds = 600 # it renders while its client waits
      threads         = 4
      max_instances   = 20
      databases       = ["service", "product"]
      bucket          = ["write"]
      kafka           = true
    }
    import_apply = {
      kind            = "kafka"
      topic           = "webshop.products.import"
      memory_mb       = 512
      timeout_seconds = 120
      threads         = 4
      max_instances   = 10
      databases       = ["product"]
      kafka           = true
    }
    import_batches = {
      kind            = "kafka"
      topic           = "webshop.product.import.trigger"
      memory_mb       = 1024
      timeout_seconds = 600
      threads         = 4
      max_instances   = 10
      databases       = ["service", "product"]
      bucket          = ["read"]
      kafka           = true
    }
    import_mirror = {
      kind            = "kafka"
      topic           = "webshop.products.updated"
      memory_mb       = 512
      timeout_seconds = 120
      threads         = 1 # its writers wait for each other's rows anyway
      max_instances   = 5
      databases       = ["product", "legacy"]
    }
    import_progress = {
      kind            = "kafka"
      topic           = "webshop.products.import.result"
      memory_mb       = 512
      timeout_seconds = 120
      threads         = 2 # the results of one import wait for its row anyway
      max_instances   = 5
      databases       = ["service"]
    }
    import_upload = {
      kind            = "storage"
      memory_mb       = 512
      timeout_seconds = 60
      threads         = 4
      max_instances   = 5
      databases       = ["service"]
      kafka           = true
    }
    imports_api = {
      kind            = "http"
      paths           = ["/webshops/*/imports", "/webshops/*/imports/**"]
      memory_mb       = 512
      timeout_seconds = 60
      threads         = 8
      max_instances   = 20
      databases       = ["service", "product"]
      bucket          = ["create", "read"]
      kafka           = true
    }
    kafka_bridge = {
      kind          = "worker"
      memory_mb     = 512
      threads       = 1
      max_instances = 2 # one works, one takes over within seconds
      kafka         = true
    }
    sweep = {
      kind            = "schedule"
      memory_mb       = 512
      timeout_seconds = 300
      threads         = 1
      max_instances   = 1
      databases       = ["service", "product"]
      bucket          = ["write"]
      kafka           = true
    }
  }
}

locals {
  # What an entry leaves out.
  unsaid = {
    topic           = null
    paths           = []
    timeout_seconds = null
    databases       = []
    bucket          = []
    kafka           = false
    secrets         = []
    signs_urls      = false
  }

  # Every entry in full, with the name of its resources: Cloud Run takes no underscore.
  deployed = {
    for key, entry in local.functions : key => merge(local.unsaid, entry, { name = replace(key, "_", "-") })
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
    runtime         = "python313" # the newest that the tests are run on
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
    available_cpu                    = "1" # less than one serves only one request at once
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
