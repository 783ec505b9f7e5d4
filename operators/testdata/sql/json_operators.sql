SELECT flight, body->>'gate' AS gate, body->'crew'->>'lead' AS lead FROM flights
