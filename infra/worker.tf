resource "google_cloud_run_v2_worker_pool" "worker" {
  for_each = local.workers

  name                = each.value.name
  location            = var.region
  deletion_protection = false # a worker stores nothing: the brokers store its position in Kafka

  scaling {
    scaling_mode          = "MANUAL"
    manual_instance_count = each.value.max_instances
  }

  template {
    service_account = google_service_account.function[each.key].email

    containers {
      image   = var.worker_image
      command = ["python"]
      args    = ["-m", "functions.${each.key}"]

      resources {
        limits = {
          cpu    = "1"
          memory = "${each.value.memory_mb}Mi"
        }
      }

      dynamic "env" {
        for_each = local.settings[each.key]
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = local.secrets_read[each.key]
        content {
          name = env.value
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.secret[env.value].secret_id
              version = "latest"
            }
          }
        }
      }
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"

      network_interfaces {
        network    = var.network
        subnetwork = var.subnetwork
      }
    }
  }

  depends_on = [google_secret_manager_secret_iam_member.function]
}
