<?php
require getenv('POLLGATE_CLIENT') ?: 'Pollgate.php';
session_start();
if (isset($_POST['name'])) {
    $_SESSION['name'] = trim(substr($_POST['name'], 0, 40));
}
$name = $_SESSION['name'] ?? '';
if ($name !== '' && isset($_POST['text'])) {
    $gate = new Pollgate(getenv('POLLGATE_INTERNAL') ?: '127.0.0.1:7080');
    $gate->publish('room', ['name' => $name, 'text' => $_POST['text']]);
    exit;
}
$token = Pollgate::token('k1', 'a long random secret', ['room'], time() + 86400, $name);
?>
<!DOCTYPE html><meta charset="UTF-8"><title>Chat</title>
<?php if ($name === '') { ?>
<form method="post"><input id="name" name="name" placeholder="Your name"><button>Come in</button></form>
<?php exit; } ?>
<ul id="users"></ul>
<ol id="messages"></ol>
<form id="form"><input id="text" autocomplete="off"><button>Say</button></form>
<script src="/pollgate.js"></script>
<script>
const token = <?= json_encode($token) ?>, client = pollgate('/comet', {token}), said = [];
const show = (list, lines) => list.replaceChildren(...lines.map((line) => {
  const item = document.createElement('li');
  item.textContent = line;
  return item;
}));
client.on('room', ({name, text}) => {
  said.push(`${name}: ${text}`);
  show(messages, said);
}, {from: 'oldest'});
client.presence('room', (list) => show(users, list.map((one) => one.user)));
form.onsubmit = (event) => {
  event.preventDefault();
  fetch('', {method: 'POST', body: new URLSearchParams({text: text.value})});
  text.value = '';
};
addEventListener('pagehide', () => fetch('/comet/room?leave=1&token=' + token, {keepalive: true}));
</script>
