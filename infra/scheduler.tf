resource "google_cloud_scheduler_job" "function" {
  for_each = local.schedule_functions

  name             = each.value.name
  region           = var.region
  schedule         = "* * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "${each.value.timeout_seconds}s"

  http_target {
    uri         = local.urls[each.key]
    http_method = "POST"

    oidc_token {
      service_account_email = google_service_account.invoker.email
      audience              = local.urls[each.key]
    }
  }

  retry_config {
    retry_count = 0 # the call of the next minute is the retry
  }
}
