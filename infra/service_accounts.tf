# One account per function, with the rights that its entry names (iam.tf).
resource "google_service_account" "function" {
  for_each = local.deployed

  account_id   = "function-${each.value.name}"
  display_name = "The function ${each.key}"
}

# Pub/Sub, Eventarc and Cloud Scheduler call the functions that are not public with this account.
resource "google_service_account" "invoker" {
  account_id   = "function-invoker"
  display_name = "Calls functions for Pub/Sub, Eventarc and Cloud Scheduler"
}

# Cloud Build builds the functions' images with this account.
resource "google_service_account" "builder" {
  account_id   = "function-builder"
  display_name = "Builds the functions"
}
