alter table products drop constraint products_identifier; -- added after the rows, which is faster

insert into products
    (webshop_uuid, identifier, name, sku_code, ean_code, article_code, price, cost_price, stock_on_hand,
     unlimited_stock, minimum_stock, maximum_stock, lot_size, lead_time_days, status, product_url, mirrored_at)
select
    webshop_uuid, identifier, name, sku_code, ean_code, article_code, price, cost_price, stock_on_hand,
    unlimited_stock, minimum_stock, maximum_stock, lot_size, lead_time_days, status, product_url, current_date - 1
from seeded_products;

alter table products add constraint products_identifier unique (webshop_uuid, identifier);
