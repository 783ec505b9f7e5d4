SELECT flight, (body->'bags')::INT AS bags FROM flights WHERE (body->>'gate') IS NOT NULL
