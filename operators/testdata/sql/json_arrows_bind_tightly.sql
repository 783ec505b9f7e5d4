-- no oracle: batch needs parentheses around each arrow
SELECT flight, body->>'gate' = 'A1' AS first, 'x' || body->>'gate' || body->'crew'->>'lead' || '!' AS text
FROM flights
WHERE body->>'gate' IS NOT NULL AND body->>'bags' <> '0' AND 'A' < body->>'gate' OR body->'crew'->>'lead' IN ('Bob')
