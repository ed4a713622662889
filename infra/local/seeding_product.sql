-- The keys of the largest table are added after its rows, which saves a quarter of the whole time (measured).
alter table products drop constraint products_pkey, drop constraint products_identifier;

insert into products
    (uuid, webshop_uuid, identifier, name, sku_code, ean_code, article_code, price, cost_price, stock_on_hand,
     unlimited_stock, minimum_stock, maximum_stock, lot_size, lead_time_days, status, product_url, created_at,
     updated_at)
select
    pg_temp.uuid_of('product', webshop_uuid, number),
    webshop_uuid, identifier, name, sku_code, ean_code, article_code, price, cost_price, stock_on_hand,
    unlimited_stock, minimum_stock, maximum_stock, lot_size, lead_time_days, status, product_url,
    current_date - make_interval(days => 400 + pg_temp.draw(number, 13, 600), secs => pg_temp.draw(number, 14, 86400)),
    current_date - make_interval(days => 1 + pg_temp.draw(number, 24, 300), secs => pg_temp.draw(number, 25, 86400))
from seeded_products;

alter table products
    add primary key (uuid), add constraint products_identifier unique (webshop_uuid, identifier);

-- Supplier 1 is a wholesaler that has most of the products. The last supplier has no email address.
insert into suppliers
    (uuid, webshop_uuid, name, email_address, phone_number, contact_name, street, postal_code, city, country_code,
     customer_number, lead_time_days, minimum_order_value, created_at)
select
    pg_temp.uuid_of('supplier', webshop_uuid, number),
    webshop_uuid,
    pg_temp.pick(
        'Nordlicht Großhandel GmbH|Töpferei Müller & Söhne|Weberei Lindgren AB|Oakfield Joinery Ltd|'
        'Van den Berg Keramiek|Maison Lefèvre|Vetreria Murano S.r.l.|Glashütte Böhmen s.r.o.|Ελληνική Κεραμική Α.Ε.|'
        'Льняной двор|東京雑貨株式会社|景德镇陶瓷有限公司|Casa da Cortiça Lda|Tekstil Yıldız A.Ş.|Bürobedarf Jäger KG|'
        'Highland Wool Co.|Kaarslicht B.V.|Fjord Living AS|Kupferschmiede Österreicher|Polskie Szkło Sp. z o.o.|'
        'Maple & Stone Inc.|Bambus Import OHG|Rheinische Korbwaren KG|Lindqvist Textil AB|Sheffield Steelworks Ltd|'
        'Rotterdam Home Trading|'
        'Ateliers du Cuir|Ceramica Toscana S.p.A.|Křišťál Morava s.r.o.|Αιγαίο Γυαλί Ε.Π.Ε.|Балтийский лён|'
        '京都竹工芸|义乌家居用品有限公司|Azulejos do Porto Lda|Anadolu Halı A.Ş.|Kerzenzieherei Engel|Loch Ness Linen|'
        'Delft Blue Supply|Bryggen Basketry|Emaillewerk Steiner|Porcelana Bolesławiec|Beacon Hill Candles|'
        'Teppichhaus Hansen|Uhrmacher am Dom|Öland Keramik|Yorkshire Cutlery|Linnenhuis Utrecht|Savon de Lyon|'
        'Marmo Veneto|Porcelán Plzeň',
        number - 1
    ),
    case when number < suppliers then 'orders-' || number || '@supplier.example' end,
    case when number % 7 <> 3 then '+49 30 555 ' || pg_temp.padded(number, 4) end,
    case when number % 5 <> 4 then pg_temp.pick(
        'Anneke de Vries|Jürgen Weiß|Zoë Lambert|Σοφία Παπαδοπούλου|Ольга Иванова|佐藤 健|Søren Kjær|Łukasz Nowak|'
        'Siobhán O''Brien|Ayşe Yılmaz',
        number
    ) end,
    pg_temp.pick('Hafenstraße|Rue de l''Église|Prinsengracht|High Street|Via Roma|Bahnhofstraße|Industrieweg', number)
        || ' ' || 1 + pg_temp.draw(number, 1, 120),
    pg_temp.padded(pg_temp.draw(number, 2, 99999), 5),
    pg_temp.pick(
        'Hamburg|Köln|Malmö|Leeds|Utrecht|Lyon|Venezia|Plzeň|Αθήνα|Вильнюс|東京|景德镇|Évora|Bursa|Bonn|Inverness|'
        'Gouda|Bergen|Graz|Kraków|Boston',
        number - 1
    ),
    pg_temp.pick('DE|DE|SE|GB|NL|FR|IT|CZ|GR|LT|JP|CN|PT|TR|DE|GB|NL|NO|AT|PL|US', number - 1),
    case when number % 9 <> 5 then 'K' || pg_temp.padded(pg_temp.draw(number, 3, 99999), 7) end,
    case when number % 6 <> 2 then 2 + pg_temp.draw(number, 4, 28) end,
    case when number % 4 <> 3 then 50 * (1 + pg_temp.draw(number, 5, 10)) end,
    current_date - 1000 + number
from webshop_sizes, generate_series(1, suppliers) as number;

-- Of the first 20,000 products, three in five can be ordered: from the wholesaler (five in six of them), from a
-- specialist (four in six), or from both. In that case the specialist is preferred. At most 18,000 rows.
insert into supplier_products
    (uuid, webshop_uuid, supplier_uuid, product_uuid, name, sku_code, ean_code, article_code, cost_price,
     minimum_order_quantity, lot_size, lead_time_days, preferred)
select
    pg_temp.uuid_of('supplier product ' || supplier, webshop_uuid, number),
    webshop_uuid,
    pg_temp.uuid_of('supplier', webshop_uuid, supplier),
    pg_temp.uuid_of('product', webshop_uuid, number),
    case when number % 12 <> 5 then pg_temp.name_of(number) || ' (' || supplier || '-' || number % 100 || ')' end,
    case when number % 16 <> 6 then 'S' || supplier || '-' || pg_temp.padded(number, 5) end,
    case when number % 18 <> 7 then pg_temp.ean_code_of(number) end,
    case when number % 15 <> 8 then pg_temp.padded(number * 53 % 1000000, 7) end,
    round(pg_temp.cost_price_of(number) * (0.9 + supplier % 5 * 0.05), 2),
    case when number % 4 <> 1 then 1 + pg_temp.draw(number, 15, 12) end,
    case when number % 5 <> 3 then (array[1, 1, 2, 6, 12])[1 + pg_temp.draw(number, 16, 5)] end,
    case when number % 7 <> 4 then 1 + pg_temp.draw(number, 17, 21) end,
    supplier > 1 or number % 10 in (1, 8)
from webshop_sizes,
    generate_series(1, least(products, 20000)) as number,
    lateral (
        select 1 where number % 10 in (1, 2, 6, 7, 8)
        union all
        select 2 + number / 10 % (suppliers - 1) where number % 10 in (2, 3, 6, 7)
    ) as supplied (supplier);

insert into promotions (uuid, webshop_uuid, name, starts_on, ends_on, discount_percent, status)
select
    pg_temp.uuid_of('promotion', webshop_uuid, number),
    webshop_uuid,
    pg_temp.pick(
        'Spring cleaning|Summer sale|Back to school|Weihnachtsmarkt|Black Friday|Πασχαλινή προσφορά|'
        'Новогодняя распродажа|新年セール|Mother''s Day|Two for one|Räumungsverkauf|Clearance',
        number - 1
    ),
    current_date + days - number,
    current_date + days + 20 + number,
    pg_temp.discount_of(number),
    status
from webshop_sizes,
    generate_series(1, promotions) as number,
    lateral (
        select pg_temp.pick('ended|running|planned', number), (array[-60, 0, 30])[1 + number % 3]
    ) as phase (status, days);

-- Each promotion has 10 to 199 products with successive numbers.
insert into promotion_products
    (uuid, webshop_uuid, promotion_uuid, product_uuid, promotion_price, expected_quantity)
select
    pg_temp.uuid_of('promotion product ' || promotion, webshop_uuid, number),
    webshop_uuid,
    pg_temp.uuid_of('promotion', webshop_uuid, promotion),
    pg_temp.uuid_of('product', webshop_uuid, number),
    round(pg_temp.price_of(number) * (1 - coalesce(pg_temp.discount_of(promotion), 0) / 100), 2),
    case when number % 9 <> 4 then 5 * (1 + pg_temp.draw(number, 18, 40)) end
from webshop_sizes,
    generate_series(1, promotions) as promotion,
    generate_series(1, least(10 + pg_temp.draw(promotion, 19, 190), products)) as place,
    lateral (select 1 + (pg_temp.draw(promotion, 20, 1000000) + place) % products) as promoted (number);

-- Orders 1 to 3 go to the wholesaler, order 4 to the supplier without an email address, the others to specialists. An
-- order is left out if its supplier has no products, as in a webshop with few products. Order 40 was deleted.
insert into buy_orders
    (uuid, webshop_uuid, supplier_uuid, number, status, currency, ordered_on, expected_on, remarks, created_at,
     deleted_at)
select
    case when number = 1 then first_buy_order_uuid else pg_temp.uuid_of('buy order', webshop.webshop_uuid, number) end,
    webshop.webshop_uuid,
    supplier.uuid,
    'BO-' || 10000 + number,
    status,
    case supplier.country_code when 'GB' then 'GBP' when 'US' then 'USD' else 'EUR' end,
    current_date - days_ago,
    case when number % 6 <> 5 then current_date - days_ago + coalesce(supplier.lead_time_days, 14) end,
    nullif(
        pg_temp.pick(
            E'Please deliver before noon.|Lieferung bitte an Tor 3, Schlüssel beim Pförtner.|'
            'One pallet, no wood.\nCall 30 minutes before: +31 20 555 0142|',
            number - 1
        ),
        ''
    ),
    current_date - make_interval(days => days_ago, hours => -9),
    case when number = 40 then current_date - make_interval(hours => 8) end
from webshop_sizes as webshop
cross join generate_series(1, buy_orders) as number
cross join lateral (
    select
        case when number <= 3 then 1 when number = 4 then suppliers else 2 + number * 5 % (suppliers - 1) end,
        case
            when number in (1, 2, 4) then 'OPEN'
            when number = 3 then 'PARTIALLY_DELIVERED'
            else pg_temp.pick('OPEN|PARTIALLY_DELIVERED|DELIVERED|CANCELLED|DELIVERED', number)
        end
) as chosen (supplier_number, status)
cross join lateral (
    select case status when 'OPEN' then 1 when 'PARTIALLY_DELIVERED' then 12 else 40 end + number * 2
) as placed (days_ago)
join suppliers as supplier on supplier.uuid = pg_temp.uuid_of('supplier', webshop.webshop_uuid, supplier_number)
where exists (select from supplier_products where supplier_uuid = supplier.uuid);

-- Order 1 has 25 lines, order 2 has 500, order 3 has 2,000 and the others have up to 40, unless the supplier has fewer
-- products. In a partially delivered order, the lines are in turn delivered by half, in full and not at all. For a few
-- lines of the delivered orders, one piece too many was delivered.
insert into buy_order_lines
    (uuid, webshop_uuid, buy_order_uuid, product_uuid, supplier_product_uuid, line_number, quantity,
     delivered_quantity, unit_price)
select
    pg_temp.uuid_of('line ' || buy_order_uuid, webshop_uuid, line_number),
    webshop_uuid,
    buy_order_uuid,
    product_uuid,
    supplier_product_uuid,
    line_number,
    quantity,
    case
        when status = 'DELIVERED' and pg_temp.draw(number + line_number, 21, 60) = 0 then quantity + 1
        when status = 'DELIVERED' then quantity
        when status = 'PARTIALLY_DELIVERED' and line_number % 3 = 1 then quantity / 2
        when status = 'PARTIALLY_DELIVERED' and line_number % 3 = 2 then quantity
        else 0
    end,
    cost_price
from (
    select webshop_uuid, uuid, supplier_uuid, status, right(number, 4)::integer from buy_orders
) as ordered (webshop_uuid, buy_order_uuid, supplier_uuid, status, number)
join (
    select
        supplier_uuid, uuid, product_uuid, cost_price, coalesce(lot_size, 1), coalesce(minimum_order_quantity, 1),
        row_number() over (partition by supplier_uuid order by uuid),
        count(*) over (partition by supplier_uuid)
    from supplier_products
) as offered
    (supplier_uuid, supplier_product_uuid, product_uuid, cost_price, lot_size, minimum_quantity, place, places)
    using (supplier_uuid)
cross join lateral (
    select
        (1 + (place + number * 17) % places)::integer,
        case number when 1 then 25 when 2 then 500 when 3 then 2000 else 1 + pg_temp.draw(number, 22, 40) end
) as numbered (line_number, line_count)
cross join lateral (
    select lot_size * (2 + minimum_quantity / lot_size + pg_temp.draw(line_number, 23, 9))
) as lots (quantity)
where line_number <= line_count;
