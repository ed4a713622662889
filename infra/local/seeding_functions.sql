-- These functions compute a product, a name or a code from a number: always the same for the same number.
-- They need webshop_sizes, a temporary table with one row per webshop (the fields of Webshop in seeding.py).

-- Returns a number from 0 to `count` - 1, always the same for the same number and salt. PostgreSQL keeps this hash
-- stable, because its partitions rely on it.
create function pg_temp.draw(number integer, salt integer, count integer) returns integer
    language sql immutable return (hashint4extended(number, salt) & 2147483647) % count;

-- Returns one of the words that are separated by bars.
create function pg_temp.pick(words text, number integer) returns text
    language sql immutable
    return (string_to_array(words, '|'))[1 + number % cardinality(string_to_array(words, '|'))];

-- Computes the key of a row from its kind and number, so that other rows can refer to it without a query.
create function pg_temp.uuid_of(kind text, webshop_uuid uuid, number integer) returns uuid
    language sql immutable return md5(kind || webshop_uuid || number)::uuid;

-- Writes a number with leading zeros. A longer number stays complete: lpad alone would cut it.
create function pg_temp.padded(number integer, width integer) returns text
    language sql immutable return lpad(number::text, greatest(width, length(number::text)), '0');

-- Computes an EAN code: 40063 (country and company), seven digits of the number, and the check digit. With the check
-- digit, the sum of all digits, multiplied by 1, 3, 1, 3, … in turn, is divisible by 10.
create function pg_temp.ean_code_of(number integer) returns text
    language sql immutable return '40063' || lpad(number::text, 7, '0') || (
        1000
        - (4 * 1 + 0 * 3 + 0 * 1 + 6 * 3 + 3 * 1)
        - 3 * (number % 10 + number / 100 % 10 + number / 10000 % 10 + number / 1000000 % 10)
        - 1 * (number / 10 % 10 + number / 1000 % 10 + number / 100000 % 10)
    ) % 10;

-- Names are in five languages, because files and fonts must support all of them.
create function pg_temp.name_of(number integer) returns text
    language sql immutable
    return
        -- Some merchants mark products that they sell off like this; a spreadsheet interprets the dash as a formula.
        case when number % 997 = 0 then '- Restposten - ' else '' end
        || case
        when number % 7 = 3 then
            pg_temp.pick(
                'Küchenmesser|Bücherregal|Blumenübertopf|Geschirrtuch|Schlüsselbrett|Gewürzmühle|Öllampe|'
                'Türstopper|Fußmatte|Wäschekorb|Brotkörbchen|Käsereibe',
                pg_temp.draw(number, 1, 999)
            )
            || ' ' || pg_temp.pick(
                'Eiche|Nussbaum|Edelstahl|Weißblech|Leinen|Porzellan|Glas|Süßgras', pg_temp.draw(number, 2, 999)
            )
            || ', ' || pg_temp.pick(
                'groß|klein|weiß|grün|2er-Set|Ø 24 cm|schwarz|für Gäste', pg_temp.draw(number, 3, 999)
            )
        when number % 31 = 5 then
            pg_temp.pick('Κούπα|Πιάτο|Βάζο|Καρέκλα|Κηροπήγιο|Τσαγιέρα', pg_temp.draw(number, 1, 999))
            || ', ' || pg_temp.pick('κεραμικό|ξύλο ελιάς|γυαλί|χαλκός', pg_temp.draw(number, 2, 999))
            || ', ' || pg_temp.pick('μπλε|λευκό|μεγάλο|σετ 6 τεμ.', pg_temp.draw(number, 3, 999))
        when number % 37 = 6 then
            pg_temp.pick('Кружка|Тарелка|Скатерть|Шкатулка|Ваза|Полотенце', pg_temp.draw(number, 1, 999))
            || ', ' || pg_temp.pick('керамика|лён|берёза|стекло', pg_temp.draw(number, 2, 999))
            || ', ' || pg_temp.pick('синий цвет|30 см|набор из 4 шт.|ёлочный узор', pg_temp.draw(number, 3, 999))
        when number % 61 = 8 then
            pg_temp.pick(
                '陶瓷马克杯 蓝色|竹制托盘 大|急須 小|風呂敷 青|玻璃花瓶 白色|도자기 그릇 세트',
                pg_temp.draw(number, 1, 999)
            )
        else
            pg_temp.pick(
                'Classic|Compact|Foldable|Handmade|Large|Light|Modern|Narrow|Nordic|Organic|Portable|Round|Rustic|'
                'Simple|Small|Soft|Solid|Stackable|Sturdy|Vintage|Waterproof|Wide|Children''s|Everyday',
                pg_temp.draw(number, 1, 999)
            )
            || ' ' || pg_temp.pick(
                'bamboo|ceramic|copper|cork|cotton|glass|leather|linen|oak|paper|steel|stone|walnut|wool',
                pg_temp.draw(number, 2, 999)
            )
            || ' ' || pg_temp.pick(
                'backpack|basket|blanket|bookshelf|bottle|bowl|candle|chair|clock|coat hook|cup|curtain|cushion|'
                'desk lamp|doormat|drawer|flower pot|frame|jar|jug|kettle|knife|ladder|lantern|mirror|mug|notebook|'
                'pan|pen holder|plate|rug|scarf|spoon|stool|table|teapot|towel|tray|vase|wall hook',
                pg_temp.draw(number, 3, 999)
            )
            || ', ' || pg_temp.pick(
                'black|blue|green|grey|red|white|0.5 l|1.5 l|30 cm|80 cm|12" wide|set of 4|A5, lined|XL',
                pg_temp.draw(number, 4, 999)
            )
        end;

create function pg_temp.sku_code_of(number integer) returns text
    language sql immutable
    return case
        when number % 11 = 7 then null
        when number % 1499 = 1233 then number || 'E' || number % 9 -- a code that a spreadsheet interprets as a number
        else pg_temp.pick('BAG|BSK|BTL|BWL|CHR|CLK|CUP|LMP|MUG|PAN|PLT|RUG|TBL|TRY|VAS', pg_temp.draw(number, 5, 999))
            || '-' || pg_temp.pick('BLK|BLU|GRN|GRY|RED|WHT', pg_temp.draw(number, 6, 999)) || '-' || number
    end;

create function pg_temp.cost_price_of(number integer) returns numeric
    language sql immutable return (100 + pg_temp.draw(number, 7, 15000)) * 0.01;

create function pg_temp.price_of(number integer) returns numeric
    language sql immutable
    return case when number % 59 <> 8 then ceil(pg_temp.cost_price_of(number) * 1.7) - 0.05 end;

create function pg_temp.discount_of(promotion integer) returns numeric
    language sql immutable return case when promotion % 12 <> 5 then 5.0 * (1 + promotion % 8) end;

-- The columns of a product that both databases have. Every nullable value is null in some rows.
create temporary view seeded_products as
select
    webshop_uuid,
    number,
    case when number <= common_products then 'P-' else 'X-' end || pg_temp.padded(number, 6) as identifier,
    pg_temp.name_of(number) as name,
    pg_temp.sku_code_of(number) as sku_code,
    case when number % 17 <> 3 then pg_temp.ean_code_of(number) end as ean_code,
    case when number % 13 <> 4 then pg_temp.padded(number * 37 % 1000000, 8) end as article_code,
    pg_temp.price_of(number) as price,
    case when number % 14 <> 2 then pg_temp.cost_price_of(number) end as cost_price,
    case when number % 211 = 9 then -3 else pg_temp.draw(number, 8, 400) end as stock_on_hand,
    number % 40 = 11 as unlimited_stock,
    case when number % 6 <> 5 then 1 + pg_temp.draw(number, 9, 20) end as minimum_stock,
    case when number % 8 <> 6 then 20 + pg_temp.draw(number, 10, 200) end as maximum_stock,
    case when number % 9 <> 7 then (array[1, 1, 2, 4, 6, 10, 12, 24])[1 + pg_temp.draw(number, 11, 8)] end as lot_size,
    case when number % 10 <> 9 then 1 + pg_temp.draw(number, 12, 30) end as lead_time_days,
    case when number % 25 = 12 then 'disabled' else 'enabled' end as status,
    case when number % 19 <> 10 then 'https://shop.example/products/' || number end as product_url
from webshop_sizes, generate_series(1, products) as number;
