variable "databases" {
  description = "The three databases. instance: Cloud SQL connection name, project:region:instance, with the flag cloudsql.iam_authentication on; name: the name of the database in that instance. The service database is created here; the platform owns the other two."
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
    error_message = "The instance must be a connection name, project:region:instance."
  }
}

variable "domain" {
  description = "Host name of the HTTP API. Its DNS record points to the output api_address."
  type        = string
}

variable "export_retention_days" {
  description = "Days for which the files of exports and of emailed buy orders are kept."
  type        = number
  default     = 30
}

variable "frontend_origins" {
  description = "Origins, like https://app.example.com, whose pages upload files directly to the bucket and download them."
  type        = set(string)
}

variable "kafka_bootstrap_servers" {
  description = "The Kafka brokers: host:port, separated by commas."
  type        = string
}

variable "kafka_username" {
  description = "SASL user of the Kafka brokers: with Managed Service for Apache Kafka the email address of a service account with roles/managedkafka.client. Its password is the secret kafka-password."
  type        = string
}

variable "mail_from_address" {
  description = "Sender of every email. SendGrid must have verified it. Replies go to the webshop."
  type        = string
}

variable "network" {
  description = "VPC network of the Kafka brokers."
  type        = string
}

variable "notification_channels" {
  description = "Ids of the Cloud Monitoring channels that receive alerts."
  type        = set(string)
}

variable "project_id" {
  description = "Google Cloud project of all resources."
  type        = string
}

variable "region" {
  description = "Region of all regional resources. The bucket is in it too, because Storage events stay in their region."
  type        = string
}

variable "sendgrid_host" {
  description = "Base URL of SendGrid's API; https://api.eu.sendgrid.com for an account in the EU. The secrets sendgrid-api-key and sendgrid-webhook-public-key belong to that account, whose event webhook posts to the path /email-events."
  type        = string
  default     = "https://api.sendgrid.com"
}

variable "source_archive" {
  description = "Path of the zip file from which the functions are built: git archive --format=zip --output=PATH HEAD main.py requirements.txt functions shared."
  type        = string
}

variable "subnetwork" {
  description = "Subnetwork of the network, in the region, with addresses for every instance that connects to Kafka."
  type        = string
}

variable "tokens" {
  description = "The bearer tokens that the API accepts: their issuer (iss), their audience (aud), and the URL of the issuer's keys."
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
