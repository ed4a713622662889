variable "databases" {
  description = "The three databases. instance: Cloud SQL connection name, project:region:instance, with the flag cloudsql.iam_authentication on; name: of the database in it. The service database is made here, the two others are the platform's."
  type = map(object({
    instance = string
    name     = string
  }))

  validation {
    condition     = toset(keys(var.databases)) == toset(["service", "product", "legacy"])
    error_message = "Name the databases service, product and legacy, and no others."
  }

  validation {
    condition     = alltrue([for database in var.databases : length(split(":", database.instance)) == 3])
    error_message = "An instance is given by its connection name, project:region:instance."
  }
}

variable "domain" {
  description = "Host name of the HTTP API. Its DNS record points at the output api_address."
  type        = string
}

variable "export_retention_days" {
  description = "How long the file of an export can be downloaded."
  type        = number
  default     = 30
}

variable "frontend_origins" {
  description = "Origins, like https://app.example.com, whose pages send files straight to the bucket and read them."
  type        = set(string)
}

variable "kafka_bootstrap_servers" {
  description = "The Kafka brokers, host:port, comma-separated."
  type        = string
}

variable "kafka_username" {
  description = "SASL user of the Kafka brokers: with Managed Service for Apache Kafka the e-mail address of a service account with roles/managedkafka.client. Its password is the secret kafka-password."
  type        = string
}

variable "mail_from_address" {
  description = "Sender of every mail; SendGrid must know it as verified. Answers go to the webshop."
  type        = string
}

variable "network" {
  description = "VPC network in which the Kafka brokers are reached."
  type        = string
}

variable "notification_channels" {
  description = "Ids of the Cloud Monitoring channels that alerts go to."
  type        = set(string)
}

variable "project_id" {
  description = "Google Cloud project of everything here."
  type        = string
}

variable "region" {
  description = "Region of everything that has one. The bucket is there too: Storage events stay in their region."
  type        = string
}

variable "sendgrid_host" {
  description = "Base URL of the mail service; https://api.eu.sendgrid.com for an account in the EU. The secrets sendgrid-api-key and sendgrid-webhook-public-key belong to that account, whose event webhook posts to the path /email-events."
  type        = string
  default     = "https://api.sendgrid.com"
}

variable "source_archive" {
  description = "Path of the zip that the functions are built from: git archive --format=zip --output=PATH HEAD main.py requirements.txt functions shared."
  type        = string
}

variable "subnetwork" {
  description = "Subnetwork of the network, in the region, with addresses for every instance that talks to Kafka."
  type        = string
}

variable "tokens" {
  description = "Whose bearer tokens the API takes: their iss, their aud, and where the issuer publishes its keys."
  type = object({
    issuer   = string
    audience = string
    jwks_url = string
  })
}

variable "worker_image" {
  description = "Container image of the workers: Python with the project as its working directory and requirements.txt installed."
  type        = string
}
