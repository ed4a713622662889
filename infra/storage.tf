locals {
  # Sweep deletes expired files and records that. The lifecycle rules only delete files that sweep has missed.
  sweep_delay_days      = 7
  import_retention_days = 30

  days_kept = {
    "imports/"    = local.import_retention_days + local.sweep_delay_days
    "exports/"    = var.export_retention_days + local.sweep_delay_days
    "buy-orders/" = var.export_retention_days + local.sweep_delay_days
  }
}

# Files of imports, exports and emailed buy orders.
resource "google_storage_bucket" "files" {
  name                        = "${var.project_id}-imports-and-exports"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = false # an import reads the generation that it started with, or fails: old generations are not used
  }

  soft_delete_policy {
    retention_duration_seconds = 604800 # a week, to undo a mistake
  }

  cors {
    origin          = var.frontend_origins
    method          = ["GET", "PUT"]
    response_header = ["Content-Disposition", "Content-Range", "Content-Type", "Range"]
    max_age_seconds = 3600
  }

  dynamic "lifecycle_rule" {
    for_each = local.days_kept
    content {
      action {
        type = "Delete"
      }
      condition {
        age            = lifecycle_rule.value
        matches_prefix = [lifecycle_rule.key]
      }
    }
  }
}

# The source code of the functions, which Cloud Build reads.
resource "google_storage_bucket" "source" {
  name                        = "${var.project_id}-imports-and-exports-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
}

resource "google_storage_bucket_object" "source" {
  # New content has a new name, so that the functions are built again.
  name   = "functions-${filesha256(var.source_archive)}.zip"
  bucket = google_storage_bucket.source.name
  source = var.source_archive
}
