# One address for the whole API: a path leads to the function that has a route for it.
locals {
  paths = merge([for key, entry in local.http_functions : { for path in entry.paths : path => key }]...)

  # In reverse alphabetical order, a narrow template comes before a wide one that also matches: * sorts before / and
  # before every letter.
  paths_narrow_first = reverse(sort(keys(local.paths)))

  # This function gets the requests for unknown paths, and responds with 404 in the format of the API.
  default_function = "imports_api"
}

resource "google_compute_region_network_endpoint_group" "function" {
  for_each = local.http_functions

  name                  = each.value.name
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloudfunctions2_function.function[each.key].name
  }
}

resource "google_compute_backend_service" "function" {
  for_each = local.http_functions

  name                  = each.value.name
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"

  backend {
    group = google_compute_region_network_endpoint_group.function[each.key].id
  }

  log_config {
    enable      = true
    sample_rate = 1
  }
}

resource "google_compute_url_map" "api" {
  name            = "imports-and-exports"
  default_service = google_compute_backend_service.function[local.default_function].id

  host_rule {
    hosts        = [var.domain]
    path_matcher = "api"
  }

  path_matcher {
    name            = "api"
    default_service = google_compute_backend_service.function[local.default_function].id

    dynamic "route_rules" {
      for_each = local.paths_narrow_first
      content {
        priority = route_rules.key + 1
        service  = google_compute_backend_service.function[local.paths[route_rules.value]].id

        match_rules {
          full_path_match     = strcontains(route_rules.value, "*") ? null : route_rules.value
          path_template_match = strcontains(route_rules.value, "*") ? route_rules.value : null
        }
      }
    }
  }
}

resource "google_compute_global_address" "api" {
  name = "imports-and-exports"
}

resource "google_compute_managed_ssl_certificate" "api" {
  name = "imports-and-exports"

  managed {
    domains = [var.domain]
  }
}

resource "google_compute_ssl_policy" "api" {
  name            = "imports-and-exports"
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_target_https_proxy" "api" {
  name             = "imports-and-exports"
  url_map          = google_compute_url_map.api.id
  ssl_certificates = [google_compute_managed_ssl_certificate.api.id]
  ssl_policy       = google_compute_ssl_policy.api.id
}

# Port 80 stays closed: a bearer token that is sent without encryption is exposed, whatever the response is.
resource "google_compute_global_forwarding_rule" "api" {
  name                  = "imports-and-exports"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  target                = google_compute_target_https_proxy.api.id
  ip_address            = google_compute_global_address.api.id
  port_range            = "443"
}
