data "google_project" "project" {
  project_id = var.project_id
}

data "google_storage_project_service_account" "storage" {
  project = var.project_id
}

locals {
  pubsub_agent = "serviceAccount:service-${data.google_project.project.number}@gcp-sa-pubsub.iam.gserviceaccount.com"

  bucket_roles = {
    read   = "roles/storage.objectViewer"
    create = "roles/storage.objectCreator"
    write  = "roles/storage.objectUser"
  }

  bucket_rights = merge([
    for key, entry in local.deployed : {
      for right in entry.bucket : "${key}/${right}" => { function = key, role = local.bucket_roles[right] }
    }
  ]...)

  # cloudsql.client may open a connection to the instance; cloudsql.instanceUser may log in to the database with IAM.
  database_rights = merge([
    for login_key, login in local.database_logins : {
      for role in ["roles/cloudsql.client", "roles/cloudsql.instanceUser"] : "${login_key}/${role}" => merge(login, { role = role })
    }
  ]...)

  dead_letter_writers = { for key, entry in local.deployed : key => entry if contains(["kafka", "storage"], entry.kind) }

  # A worker publishes Kafka's records to every topic.
  topic_writers = merge([
    for key in keys(local.workers) : { for topic in local.topics : "${key}/${topic}" => { function = key, topic = topic } }
  ]...)
}

# --- rights of functions

resource "google_storage_bucket_iam_member" "function" {
  for_each = local.bucket_rights

  bucket = google_storage_bucket.files.name
  role   = each.value.role
  member = google_service_account.function[each.value.function].member
}

resource "google_project_iam_member" "database" {
  for_each = local.database_rights

  project = each.value.project
  role    = each.value.role
  member  = google_service_account.function[each.value.function].member

  condition {
    title      = "The ${each.value.database} database's instance"
    expression = "resource.service == 'sqladmin.googleapis.com' && resource.name == 'projects/${each.value.project}/instances/${each.value.instance}'"
  }
}

resource "google_pubsub_topic_iam_member" "dead_letters" {
  for_each = local.dead_letter_writers

  topic  = google_pubsub_topic.dead_letters.id
  role   = "roles/pubsub.publisher"
  member = google_service_account.function[each.key].member
}

resource "google_pubsub_topic_iam_member" "worker" {
  for_each = local.topic_writers

  topic  = google_pubsub_topic.topic[each.value.topic].id
  role   = "roles/pubsub.publisher"
  member = google_service_account.function[each.value.function].member
}

# The IAM service signs URLs for the service account, so no key file is needed.
resource "google_service_account_iam_member" "signs_urls" {
  for_each = { for key, entry in local.deployed : key => entry if entry.signs_urls }

  service_account_id = google_service_account.function[each.key].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = google_service_account.function[each.key].member
}

# --- rights to call functions

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = local.private_functions

  name     = google_cloudfunctions2_function.function[each.key].name
  location = var.region
  role     = "roles/run.invoker"
  member   = google_service_account.invoker.member
}

# The functions of the API check bearer tokens themselves, and only the load balancer can reach them.
resource "google_cloud_run_v2_service_iam_member" "public" {
  for_each = local.http_functions

  name     = google_cloudfunctions2_function.function[each.key].name
  location = var.region
  role     = "roles/run.invoker"
  member   = "allUsers"
}

# --- rights of Google's own services

resource "google_pubsub_topic_iam_member" "pubsub_writes_dead_letters" {
  topic  = google_pubsub_topic.dead_letters.id
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "pubsub_acknowledges_dead_letters" {
  for_each = google_pubsub_subscription.function

  subscription = each.value.id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

resource "google_service_account_iam_member" "pubsub_makes_tokens" {
  service_account_id = google_service_account.invoker.name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = local.pubsub_agent
}

resource "google_project_iam_member" "storage_events" {
  project = var.project_id
  role    = "roles/pubsub.publisher"
  member  = data.google_storage_project_service_account.storage.member
}

resource "google_project_iam_member" "eventarc_receiver" {
  project = var.project_id
  role    = "roles/eventarc.eventReceiver"
  member  = google_service_account.invoker.member
}

resource "google_project_iam_member" "builder" {
  for_each = toset(["roles/artifactregistry.writer", "roles/logging.logWriter", "roles/storage.objectViewer"])

  project = var.project_id
  role    = each.key
  member  = google_service_account.builder.member
}
