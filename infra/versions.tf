terraform {
  required_version = ">= 1.9"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 7.45"
    }
  }

  # `terraform init -backend-config=bucket=NAME` names the bucket.
  backend "gcs" {
    prefix = "imports-and-exports"
  }
}

provider "google" {
  project = var.project_id
  region  = var.region
}
