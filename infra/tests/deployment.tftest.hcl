# These tests check what Terraform creates from functions.yaml. They need no cloud: a mocked provider invents Google's
# responses.
mock_provider "google" {
  mock_resource "google_cloudfunctions2_function" {
    defaults = {
      service_config = { uri = "https://function.example.run.app" }
    }
  }
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  databases = {
    service = { instance = "shop:europe-west4:service", name = "imports_and_exports" }
    product = { instance = "platform:europe-west4:products", name = "products" }
    legacy  = { instance = "old:europe-west4:legacy", name = "legacy" }
  }
  domain                  = "api.example.com"
  frontend_origins        = ["https://app.example.com"]
  kafka_bootstrap_servers = "bootstrap.kafka.europe-west4.managedkafka.shop.cloud.goog:9092"
  kafka_username          = "kafka@shop.iam.gserviceaccount.com"
  mail_from_address       = "orders@shop.example"
  network                 = "main"
  notification_channels   = ["projects/shop/notificationChannels/1"]
  project_id              = "shop"
  region                  = "europe-west4"
  source_archive          = "versions.tf" # any file is enough: Terraform does not open the zip
  subnetwork              = "functions"
  tokens = {
    issuer   = "https://login.example.com"
    audience = "imports-and-exports"
    jwks_url = "https://login.example.com/keys"
  }
  worker_image = "europe-west4-docker.pkg.dev/shop/images/imports-and-exports:1"
}

run "each_kafka_function_gets_its_topic_with_five_attempts_per_message" {
  assert {
    condition = alltrue([
      for key, entry in local.kafka_functions :
      endswith(google_pubsub_subscription.function[key].push_config[0].push_endpoint, "/projects/shop/topics/${entry.topic}")
    ])
    error_message = "The framework reads a message's topic from the path that it is pushed to."
  }
  assert {
    condition = alltrue([
      for subscription in google_pubsub_subscription.function :
      subscription.dead_letter_policy[0].dead_letter_topic == google_pubsub_topic.dead_letters.id
      && subscription.dead_letter_policy[0].max_delivery_attempts == 5
    ])
    error_message = "After five attempts, a message goes to dead-letters."
  }
  assert {
    condition = alltrue([
      for subscription in google_pubsub_subscription.function :
      subscription.push_config[0].oidc_token[0].service_account_email == google_service_account.invoker.email
    ])
    error_message = "Pub/Sub identifies itself with a token."
  }
  assert {
    condition = alltrue([
      for key, entry in local.kafka_functions :
      google_pubsub_subscription.function[key].ack_deadline_seconds == entry.timeout_seconds && entry.timeout_seconds <= 600
    ])
    error_message = "A message must not be delivered again while its function may still process it. Pub/Sub waits for 600 seconds at most."
  }
}

run "topics_follow_from_the_functions" {
  assert {
    condition     = toset(keys(google_pubsub_topic.topic)) == toset([for entry in values(local.kafka_functions) : entry.topic])
    error_message = "There is one Pub/Sub topic for each topic that a function receives."
  }
  assert {
    condition     = strcontains(file("../shared/messages.py"), "\"${google_pubsub_topic.dead_letters.name}\"")
    error_message = "Functions and Pub/Sub send dead letters to the same topic."
  }
}

run "each_kind_of_function_gets_its_events" {
  assert {
    condition = alltrue([
      for key, entry in local.services :
      join(", ", [
        for trigger in google_cloudfunctions2_function.function[key].event_trigger :
        "${trigger.event_type} ${trigger.retry_policy}"
      ])
      == (entry.kind == "storage" ? "google.cloud.storage.object.v1.finalized RETRY_POLICY_RETRY" : "")
    ])
    error_message = "A storage function receives an event for every finalized object, with retries until it succeeds. Other functions receive none."
  }
  assert {
    condition = (
      keys(google_cloud_scheduler_job.function) == keys(local.schedule_functions)
      && alltrue([for job in google_cloud_scheduler_job.function : job.schedule == "* * * * *"])
    )
    error_message = "A schedule function is called every minute."
  }
  assert {
    condition = alltrue([
      for key in keys(local.workers) :
      google_cloud_run_v2_worker_pool.worker[key].template[0].containers[0].args == tolist(["-m", "functions.${key}"])
    ])
    error_message = "A worker runs the module of its name."
  }
}

run "the_load_balancer_is_the_only_way_in" {
  assert {
    condition = alltrue([
      for key, entry in local.services :
      google_cloudfunctions2_function.function[key].service_config[0].ingress_settings
      == (entry.kind == "http" ? "ALLOW_INTERNAL_AND_GCLB" : "ALLOW_INTERNAL_ONLY")
    ])
    error_message = "The internet cannot reach a function by the function's own address."
  }
  assert {
    condition = (
      keys(google_cloud_run_v2_service_iam_member.public) == keys(local.http_functions)
      && alltrue([for member in google_cloud_run_v2_service_iam_member.invoker : member.member != "allUsers"])
    )
    error_message = "Only the functions of the API may be called without a Google identity."
  }
  assert {
    condition = (
      toset([
        for rule in google_compute_url_map.api.path_matcher[0].route_rules :
        try(coalesce(rule.match_rules[0].path_template_match), rule.match_rules[0].full_path_match)
      ])
      == toset(flatten([for entry in local.http_functions : entry.paths]))
    )
    error_message = "The load balancer has one rule for each path of an entry."
  }
}

run "a_function_has_what_its_entry_names_and_no_more" {
  assert {
    condition = alltrue([
      for key, entry in local.deployed : toset(entry.databases) == toset([
        for login_key, login in google_sql_user.function : split("/", login_key)[1]
        if login.name == trimsuffix(google_service_account.function[key].email, ".gserviceaccount.com")
      ])
    ])
    error_message = "A function logs in to the databases that its entry names."
  }
  assert {
    condition = alltrue([
      for right in google_project_iam_member.database :
      strcontains(right.condition[0].expression, "resource.name == 'projects/${right.project}/instances/")
    ])
    error_message = "The right to connect is limited to one instance."
  }
  assert {
    condition = (
      toset([for right in google_storage_bucket_iam_member.function : right.member])
      == toset([for key, entry in local.deployed : google_service_account.function[key].member if length(entry.bucket) > 0])
    )
    error_message = "Only a function whose entry names a right to the bucket has one."
  }
  assert {
    condition = alltrue([
      for key, entry in local.deployed :
      entry.kafka == contains(keys(local.settings[key]), "KAFKA_BOOTSTRAP_SERVERS")
      && entry.kafka == contains(local.secrets_read[key], "KAFKA_PASSWORD")
    ])
    error_message = "Only a function that uses Kafka gets the address and the password of Kafka."
  }
  assert {
    condition     = length(setintersection(flatten([for settings in local.settings : keys(settings)]), flatten(values(local.secrets_read)))) == 0
    error_message = "A secret is a reference to Secret Manager, never a value."
  }
}

run "functions_get_every_setting_that_they_read" {
  assert {
    condition = alltrue([
      for setting in setunion(keys(merge(values(local.settings)...)), keys(google_secret_manager_secret.secret)) :
      strcontains(file("../README.md"), "`${setting}`")
    ])
    error_message = "No function reads a setting that the README does not list."
  }
  assert {
    condition = alltrue([
      for setting in flatten(regexall("`([A-Z][A-Z_]+)`", split("\n\n", split("## Settings\n\n", file("../README.md"))[1])[0])) :
      contains(setunion(keys(merge(values(local.settings)...)), keys(google_secret_manager_secret.secret)), setting)
      || endswith(setting, "_DATABASE_URL") || endswith(setting, "_DATABASE_PASSWORD")
    ])
    error_message = "Functions get every setting of the README's table. They reach a database by its instance and an IAM login, not by a URL or a password."
  }
}

run "an_alert_watches_for_messages_that_functions_log" {
  assert {
    condition = alltrue([
      for phrase in flatten(regexall("jsonPayload.message : \"([^\"]+)\"", google_logging_metric.active_too_long.filter)) :
      anytrue([for module in fileset("..", "{functions,shared}/**/*.py") : strcontains(file("../${module}"), phrase)])
    ])
    error_message = "The alert would never fire for a phrase that no function logs."
  }
  assert {
    condition     = length(regexall("jsonPayload.message : \"[^\"]+\"", google_logging_metric.active_too_long.filter)) > 0
    error_message = "The filter names phrases."
  }
}

run "files_are_private_and_can_be_restored" {
  assert {
    condition = (
      google_storage_bucket.files.uniform_bucket_level_access
      && google_storage_bucket.files.public_access_prevention == "enforced"
    )
    error_message = "No object can be public."
  }
  assert {
    condition = (
      !google_storage_bucket.files.versioning[0].enabled
      && google_storage_bucket.files.soft_delete_policy[0].retention_duration_seconds >= 604800
    )
    error_message = "A file that was deleted by mistake can be restored for a week. No other old versions are kept."
  }
  assert {
    condition     = contains(google_storage_bucket.files.cors[0].method, "PUT")
    error_message = "Pages of the frontend send files directly to the bucket."
  }
}

run "a_malformed_connection_name_is_refused" {
  command = plan

  variables {
    databases = {
      service = { instance = "service", name = "imports_and_exports" }
      product = { instance = "platform:europe-west4:products", name = "products" }
      legacy  = { instance = "old:europe-west4:legacy", name = "legacy" }
    }
  }

  expect_failures = [var.databases]
}
