locals {
  # Every login that an entry needs. The name of an IAM user in PostgreSQL is the account's address without its last part.
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
  deletion_policy = "ABANDON" # the merchants' data survives the deletion of the infrastructure
}

# The owners of a database grant the rights on its tables there.
resource "google_sql_user" "function" {
  for_each = local.database_logins

  name     = each.value.user
  project  = each.value.project
  instance = each.value.instance
  type     = "CLOUD_IAM_SERVICE_ACCOUNT"
}
