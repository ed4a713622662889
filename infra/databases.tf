locals {
  # Every login that an entry asks for. IAM users of PostgreSQL are called by the address without its last part.
  database_logins = merge([
    for key, entry in local.deployed : {
      for database in entry.databases : "${key}/${database}" => {
        function = key
        database = database
        project  = split(":", var.databases[database].instance)[0]
        instance = split(":", var.databases[database].instance)[2]
        user     = trimsuffix(google_service_account.function[key].email, ".gserviceaccount.com")
      }
    }
  ]...)
}

resource "google_sql_database" "service" {
  name            = var.databases["service"].name
  project         = split(":", var.databases["service"].instance)[0]
  instance        = split(":", var.databases["service"].instance)[2]
  deletion_policy = "ABANDON" # what merchants did is not thrown away with the infrastructure
}

# Which tables a user may read and write is granted in the database, by those who own it.
resource "google_sql_user" "function" {
  for_each = local.database_logins

  name     = each.value.user
  project  = each.value.project
  instance = each.value.instance
  type     = "CLOUD_IAM_SERVICE_ACCOUNT"
}
