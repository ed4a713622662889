alter table products drop constraint products_identifier; -- comes when the table is full, which is faster

-- The old platform misses one product in fifty, and has an old price and stock of one in four hundred.
insert into products
    (webshop_uuid, identifier, name, sku_code, ean_code, article_code, price, cost_price, stock_on_hand,
     unlimited_stock, minimum_stock, maximum_stock, lot_size, lead_time_days, status, product_url, mirrored_at)
select
    webshop_uuid, identifier, name, sku_code, ean_code, article_code,
    case when number % 400 = 7 then price + 1 else price end,
    cost_price,
    case when number % 400 = 7 then stock_on_hand + 5 else stock_on_hand end,
    unlimited_stock, minimum_stock, maximum_stock, lot_size, lead_time_days, status, product_url,
    current_date - case when number % 400 = 7 then 90 else 1 end
from seeded_products
where number % 50 <> 20;

alter table products add constraint products_identifier unique (webshop_uuid, identifier);
