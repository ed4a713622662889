# The environment of every function, which shared/settings.py reads: only the settings that its entry needs.
locals {
  database_settings = {
    for key, entry in local.deployed : key => merge([
      for database in entry.databases : {
        "${upper(database)}_DATABASE_INSTANCE" = var.databases[database].instance
        "${upper(database)}_DATABASE_NAME"     = var.databases[database].name
        "${upper(database)}_DATABASE_USER"     = local.database_logins["${key}/${database}"].user
      }
    ]...)
  }

  settings = {
    for key, entry in local.deployed : key => merge(
      {
        GOOGLE_CLOUD_PROJECT  = var.project_id
        BUCKET                = google_storage_bucket.files.name
        EXPORT_RETENTION_DAYS = tostring(var.export_retention_days)
        LOG_FORMAT            = "json"
        SIGNED_URLS           = entry.signs_urls ? "on" : "off"
        THREADS               = tostring(entry.threads)
      },
      local.database_settings[key],
      entry.kafka ? {
        KAFKA_BOOTSTRAP_SERVERS = var.kafka_bootstrap_servers
        KAFKA_USERNAME          = var.kafka_username
      } : {},
      contains(entry.secrets, "SENDGRID_API_KEY") ? {
        SENDGRID_HOST     = var.sendgrid_host
        MAIL_FROM_ADDRESS = var.mail_from_address
      } : {},
      entry.kind == "http" ? {
        TOKEN_ISSUER   = var.tokens.issuer
        TOKEN_AUDIENCE = var.tokens.audience
        TOKEN_JWKS_URL = var.tokens.jwks_url
      } : {},
    )
  }
}
