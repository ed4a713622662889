locals {
  # Sweep removes files, and says so in their records; this only catches what it should ever miss.
  days_that_sweep_may_be_late = 7
  import_retention_days       = 30

  days_kept = {
    "imports/"    = local.import_retention_days + local.days_that_sweep_may_be_late
    "exports/"    = var.export_retention_days + local.days_that_sweep_may_be_late
    "buy-orders/" = var.export_retention_days + local.days_that_sweep_may_be_late
  }
}

# Files of imports, exports and mails.
resource "google_storage_bucket" "files" {
  name                        = "${var.project_id}-imports-and-exports"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  versioning {
    enabled = false # an import reads the generation that it began with, or fails: old ones are of no use
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

# The functions' own source, which Cloud Build reads.
resource "google_storage_bucket" "source" {
  name                        = "${var.project_id}-imports-and-exports-source"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
}

resource "google_storage_bucket_object" "source" {
  # Another content is another name: that is what makes the functions be built anew.
  name   = "functions-${filesha256(var.source_archive)}.zip"
  bucket = google_storage_bucket.source.name
  source = var.source_archive
}
