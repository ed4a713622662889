# Secrets, by their setting. Terraform creates them without a value; `gcloud secrets versions add NAME --data-file=-` adds
# the value, so that Terraform's state does not contain it.
locals {
  secrets_read = {
    for key, entry in local.deployed : key => toset(concat(entry.kafka ? ["KAFKA_PASSWORD"] : [], entry.secrets))
  }

  secret_readers = merge([
    for key, secrets in local.secrets_read : {
      for secret in secrets : "${key}/${secret}" => { function = key, secret = secret }
    }
  ]...)
}

resource "google_secret_manager_secret" "secret" {
  for_each = setunion([], values(local.secrets_read)...)

  secret_id = lower(replace(each.key, "_", "-"))

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_iam_member" "function" {
  for_each = local.secret_readers

  secret_id = google_secret_manager_secret.secret[each.value.secret].id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.function[each.value.function].member
}
