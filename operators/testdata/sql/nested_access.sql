SELECT flight, plane['tail'] AS tail, tags[1] AS first_tag, legs[1]['to'] AS first_leg, array_length(tags) AS tag_count, array_has(tags, 'full') AS full_up FROM flights
