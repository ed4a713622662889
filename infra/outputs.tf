output "api_address" {
  description = "IP address of the HTTP API. The domain's A record must have this value."
  value       = google_compute_global_address.api.address
}

output "bucket" {
  description = "The bucket of imports and exports."
  value       = google_storage_bucket.files.name
}

output "database_users" {
  description = "The users of each database. They need rights on its tables."
  value = {
    for database in keys(var.databases) : database => {
      for login in values(local.database_logins) : login.function => login.user if login.database == database
    }
  }
}

output "function_urls" {
  description = "The URL of each function, by its name."
  value       = local.urls
}

output "kafka_topics" {
  description = "The topics that the Kafka brokers must have."
  value       = local.topics
}

output "secrets" {
  description = "The secrets that need a version before the functions start, by their setting."
  value       = { for setting, secret in google_secret_manager_secret.secret : setting => secret.secret_id }
}
